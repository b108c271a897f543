"""Fifty identifiers planted in every series: none leaves but in derived DICOM.

`python -m tests.faults.identifiers`: `inspect`, `train`, `harmonize` and `evaluate` over sound and
bad series, their files and folders named by identifiers too; what the commands print, log, warn of
and write is searched, names of files included. Left out is what a manifest lists as local.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from pydicom import Dataset
from pydicom.uid import JPEGLSLossless

from tests.conftest import phantom_hu
from tests.faults.commands import call
from tests.faults.finding import Finding, script
from tests.faults.planted import IDENTIFIERS, plant, spoil
from tests.io.test_enhanced import enhanced
from tests.support.dicom_files import slice_dataset, write_series, write_slice
from tests.support.nifti_files import write_converted, write_scan


def _gap(ds: Dataset, i: int) -> None:
    plant(ds)
    ds.ImagePositionPatient = [0, 0, 5 * i + 20 * (i == 3)]


def _no_rescale(ds: Dataset, i: int) -> None:
    plant(ds)
    del ds.RescaleSlope


def _scout(ds: Dataset, i: int) -> None:
    plant(ds)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def write_trees(folder: Path) -> Path:
    """`good` and `target`: a sound series among foreign files; `bad`: all that fails."""
    for name, seed, blur in (("good", 1, 0.0), ("target", 2, 0.8)):
        stored = (phantom_hu(seed, blur) + 1024).astype("<u2")
        write_series(folder / name / "scan", stored=stored, series=f"1.2.{seed}", change=plant)
        write_series(folder / name / "scout", 1, series=f"1.3.{seed}", change=_scout)
        (folder / name / "notes.txt").write_text(IDENTIFIERS[0])
    bad = folder / "bad"
    write_series(bad / "gap", series="1.4.1", change=_gap)
    write_series(bad / "rescale", series="1.4.2", change=_no_rescale)
    cut = slice_dataset(0, np.zeros((40, 36), int), series="1.4.3")
    plant(cut)
    file = write_slice(bad / "cut.dcm", cut, JPEGLSLossless)
    content = bytearray(file.read_bytes())
    content[-40:-20] = bytes(20)
    file.write_bytes(content)
    frames = enhanced()
    plant(frames)
    frames.SeriesInstanceUID, frames.NumberOfFrames = "1.4.4", 4
    write_slice(bad / "enhanced.dcm", frames)
    scans = folder / "nifti"
    scans.mkdir()
    write_converted(folder / "good" / "scan", scans / f"{IDENTIFIERS[2]}.nii.gz")
    write_scan(scans / f"{IDENTIFIERS[3]}^Anna 1950.nii.gz", scaling=(1, 1.0))
    (scans / f"{IDENTIFIERS[4]}.nii").write_bytes(b"cut off")
    (scans / f"{IDENTIFIERS[5]}.nrrd").write_bytes(b"NRRD0004\n")
    for file in folder.rglob("*.dcm"):
        spoil(file)
    content = (bad / "gap" / "001.dcm").read_bytes()
    (bad / "damaged.dcm").write_bytes(content[: content.index(b"Zq10xW") + 3])
    for file in sorted(folder.rglob("*.dcm")):
        file.rename(file.with_name(f"{IDENTIFIERS[0]}-{file.name}"))
    for place in (folder / "good" / "scan", folder / "target" / "scan", bad / "gap"):
        place.rename(place.with_name(IDENTIFIERS[1]))
    return folder


def _local_in(folder: Path) -> set[Path]:
    """Files that some manifest says may identify a patient."""
    found = set()
    for manifest in folder.rglob("manifest.json"):
        patterns = json.loads(manifest.read_text()).get("may_identify_patients", [])
        found |= {path for pattern in patterns for path in manifest.parent.glob(pattern)}
    return found


def _told_in(folder: Path) -> list[str]:
    """Names and contents of all files but those that are local, inflated; names of DICOM too."""
    found, local = [], _local_in(folder)
    for path in folder.rglob("*"):
        if path in local and path.suffix != ".dcm":
            continue
        found.append(str(path.relative_to(folder)))
        if path.is_file() and path not in local:
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
            found.append(content.decode("latin-1"))
    return found


def everything_told(folder: Path) -> tuple[str, list[str]]:
    """All that leaves when commands run over `write_trees`, and what went otherwise."""
    trees, out = write_trees(folder / "scans"), folder / "out"
    cache, log = folder / "cache", io.StringIO()
    told: list[str] = []
    wrong: list[str] = []

    def run(expected: int, *words: object) -> str:
        code, printed, err = call(*words)
        if code != expected:
            wrong.append(f"{words[0]}: exit code {code}, expected {expected}: {err}")
        told.extend((printed, err))
        return err

    with (
        warnings.catch_warnings(record=True) as caught,
        mock.patch.dict(os.environ, XDG_CACHE_HOME=str(cache)),
        _logged(log),
    ):
        warnings.simplefilter("always")
        run(0, "inspect", trees / "good")
        err = run(1, "inspect", trees / "bad")
        for part in (
            "25.0 mm",
            "Rescale Slope",
            "compressed as",
            "functional groups",
            "InstanceUID",
        ):
            if part not in err:
                wrong.append(f"inspect says nothing of {part}")
        sides = ("--source", trees / "good", "--target", trees / "target")
        run(0, "train", "input", *sides, "--out", out / "model")
        model = ("--model", out / "model")
        run(0, "harmonize", trees / "good", *model, "--out", out / "harmonized", "--nifti")
        run(1, "harmonize", trees / "bad", *model, "--out", out / "nothing")
        run(3, "inspect", trees / "nifti")
        run(3, "harmonize", trees / "nifti", *model, "--out", out / "scans")
        (trees / "bad" / "good").symlink_to(trees / "good", target_is_directory=True)
        (trees / "target").rename(trees / "bad" / "target")
        run(3, "harmonize", trees / "bad", *model, "--out", out / "some")
        target = ("--target", trees / "bad" / "target")
        run(1, "evaluate", "--harmonized", trees / "bad", *target, "--out", out / "failed")
        run(
            0, "evaluate", "--harmonized", out / "harmonized", *target, "--source", trees / "good",
            "--rois", 3, "--workers", 1, "--out", out / "report",
        )  # fmt: skip
    told += [log.getvalue(), *(str(warning.message) for warning in caught)]
    told += [*_told_in(out), *_told_in(cache)]
    if len(list(out.rglob("*.nii.gz"))) != 3:
        wrong.append("not one NIfTI twin and two scans")
    return "\n".join(told), wrong


def identifiers(folder: Path, count: int, seed: int) -> Finding:
    """All of them at once; a seed changes nothing."""
    told, wrong = everything_told(folder)
    wrong += [f"{value} was told" for value in IDENTIFIERS[:count] if value in told]
    return Finding(
        "planted identifiers: none in what is printed, logged, warned of, named or written",
        count,
        tuple(wrong),
        {"characters_searched": len(told)},
    )


@contextlib.contextmanager
def _logged(log: io.StringIO) -> Iterator[None]:
    handler, root = logging.StreamHandler(log), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


if __name__ == "__main__":
    script(identifiers, len(IDENTIFIERS))
