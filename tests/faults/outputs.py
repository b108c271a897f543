"""Every output of a run over odd and sound series, put before the validators.

`python -m tests.faults.outputs`: no error of dciodvfy that the source did not have, none of
dcentvfy over both together.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from cvsct.io.dicom.header import ENHANCED_CT
from tests.faults.commands import call
from tests.faults.finding import Finding, script
from tests.faults.geometries import setting
from tests.faults.models import write_model
from tests.faults.seeds import ODD
from tests.faults.validators import errors, missing
from tests.io.test_enhanced import enhanced
from tests.support.compressed_files import LOSSLESS, write_compressed
from tests.support.dicom_files import signed, stored_values, write_series, write_slice

GOAL = "every output: no new dciodvfy error over the source's, dcentvfy clean"


def outputs(folder: Path, count: int, seed: int) -> Finding:
    """The first so many sources; a seed changes nothing."""
    if missing():
        return Finding(GOAL, 0, skipped=missing())
    model = write_model(folder / "model")
    sources = list(_sources(folder / "sources"))[:count]
    failures: list[str] = []
    figures = {"outputs": 0, "refused": 0}
    for i, source in enumerate(sources):
        out = folder / "out" / str(i)
        code, _, err = call("harmonize", source, "--model", model, "--out", out)
        if code:
            figures["refused"] += 1
            if "cvsct: error: " not in err:
                failures.append(f"{source.name}: {err}")
            continue
        figures["outputs"] += len(list(out.rglob("*.dcm")))
        failures += [f"{source.name}: {wrong}" for wrong in _found(source, out)]
    return Finding(GOAL, len(sources), tuple(failures), figures)


def _found(source: Path, out: Path) -> Iterator[str]:
    (folder,) = (each for each in out.iterdir() if each.is_dir())
    derived = {dcmread(path, stop_before_pixels=True).SOPInstanceUID: path
               for path in folder.glob("*.dcm")}  # fmt: skip
    originals = [source] if source.is_file() else sorted(source.iterdir())
    headers = {path: dcmread(path, stop_before_pixels=True) for path in originals}
    uid_map = json.loads((folder / "uid_map.json").read_text())["instances"]
    before = {str(ds.SOPInstanceUID): errors("dciodvfy", "-new", path)
              for path, ds in headers.items()}  # fmt: skip
    framed = any(ds.SOPClassUID in ENHANCED_CT for ds in headers.values())
    for old, new in uid_map.items():
        after = errors("dciodvfy", "-new", derived[new])
        # a frame has become an image of another kind: none of its errors is the source's
        known = set() if framed else before[old]
        for line in after - known:
            if not _quoted(line) & _quoted(*known):  # a source's own odd UID is named as it is
                yield line
    alone = errors("dcentvfy", *originals)
    yield from errors("dcentvfy", *([] if framed else originals), *derived.values()) - alone


def _quoted(*lines: str) -> set[str]:
    """The values that lines complain of."""
    return {value for line in lines for value in re.findall(r"= <(.+?)>", line)}


def _sources(folder: Path) -> Iterator[Path]:
    """Sound series of every kind that is written here, then the odd files that there are."""
    plain = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
    for syntax in (*plain, DeflatedExplicitVRLittleEndian, RLELossless):
        yield write_series(folder / f"plain-{syntax}", 3, syntax=syntax)
    for syntax in LOSSLESS:
        yield write_compressed(_made(folder / f"packed-{syntax}") / "a.dcm", syntax).parent
    for name, change in _changes().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # while odd values are set
            yield write_series(folder / name, 3, change=change)
    for syntax in (ExplicitVRLittleEndian, RLELossless):
        yield write_slice(_made(folder / f"frames-{syntax}") / "a.dcm", enhanced(), syntax)
    for path in sorted(ODD.glob("*/*.dcm")) if ODD.is_dir() else ():
        yield Path(shutil.copy(path, _made(folder / f"odd-{path.parent.name}-{path.stem}")))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _changes() -> dict[str, object]:
    def padded(ds: Dataset, i: int) -> None:
        values = stored_values(3)
        values[:, :4] = -2000
        signed(ds, values[i])
        ds.add_new("PixelPaddingValue", "SS", -2000)

    def inverted(ds: Dataset, i: int) -> None:
        ds.PhotometricInterpretation = "MONOCHROME1"

    def long_uids(ds: Dataset, i: int) -> None:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            ds[keyword].value = f"1.2.{len(keyword)}.{i}{'9' * 58}"
        ds.StudyInstanceUID = ds.SeriesInstanceUID = "1.2.7." + "9" * 60

    def own_rescale(ds: Dataset, i: int) -> None:
        ds.RescaleIntercept = -1024 - i

    return {
        "long uids": long_uids,
        "own rescale": own_rescale,
        "misspelled": setting(RescaleType="Houndsfield Unit"),
        "unspecified": setting(RescaleType="US"),
        "padded": padded,
        "inverted": inverted,
        "kernels": setting(ConvolutionKernel=["B30f", "2"]),
        "no kernel": setting(ConvolutionKernel=""),
        "kvp": setting(KVP="000140"),
        "synthetic": setting(SyntheticData="YES"),
        "lossy": setting(LossyImageCompression="01", LossyImageCompressionRatio="4"),
        "derived": setting(ImageType=["DERIVED", "PRIMARY", "AXIAL"], DerivationDescription="x"),
        "latin": setting(PatientName="Müller^Änne", InstitutionName="Klinikum Köln"),
        "no maker": setting(Manufacturer="", ManufacturerModelName=""),
        "slope": setting(RescaleSlope="0.5", RescaleIntercept="-1000"),
        "16 bits": setting(BitsStored=16, HighBit=15),
    }


if __name__ == "__main__":
    script(outputs, 1000)
