"""What derived images are called and when they say they were made."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from cvsct.core.errors import UsageError
from cvsct.inference.timestamp import parse_timestamp
from cvsct.io.dicom.derive import is_derived_here
from cvsct.io.dicom.write import write_derived
from cvsct.io.read import find_series, read_all
from cvsct.io.series import is_harmonized
from tests.support.commands import Run
from tests.support.dicom_files import DERIVATION, stored_values, write_series
from tests.support.nifti_files import write_scan

LONG = "SIEMENS SOMATOM Edge, kernel Br40d\\3, 120 kVp; SIEMENS SOMATOM, kernel Bl64, 100 kVp"
MADE_WHEN = [f"{what}{part}" for what in ("InstanceCreation", "Series", "Content")
             for part in ("Date", "Time")]  # fmt: skip


def derived(tmp_path: Path, change: Callable[[Dataset, int], None], **about: str) -> Dataset:
    volume = read_all(write_series(tmp_path / "in", 2, change=change))[0]
    written = write_derived(volume, volume.hu, tmp_path / "out", replace(DERIVATION, **about))
    return dcmread(written.files[0])


@pytest.mark.parametrize(
    ("charset", "theirs", "expected"),
    [
        ("ISO_IR 100", "Thorax nativ", "; Thorax nativ"),
        ("ISO_IR 100", "Schädel", "; Schädel"),
        ("ISO_IR 192", "胸部 CT", "; 胸部 CT"),
        ("ISO_IR 100", "", "Br40d/3/Bl64"),
        ("ISO_IR 100", "a word " * 9, "; a word a word a..."),
    ],
)
def test_descriptions_keep_kernels_whole_and_the_sources_words(
    tmp_path: Path, charset: str, theirs: str, expected: str
) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.SpecificCharacterSet = charset
        ds.SeriesDescription = theirs.strip()

    told = str(derived(tmp_path, change, target=LONG).SeriesDescription)
    assert told.startswith("Research use only: cvsct to Br40d/3/Bl64")
    assert told.endswith(expected)
    assert len(told) <= 64


def test_a_series_number_for_each_model_setting_and_source() -> None:
    others = [
        replace(DERIVATION, model_sha256="ef" * 32),
        replace(DERIVATION, config_sha256="12" * 32),
        replace(DERIVATION, timestamp="20261128093000"),
        DERIVATION,
    ]
    found = [each.series_number(number) for each in others for number in (None, 2, 3, 1002, -4)]
    assert len(set(found)) == len(found)
    assert all(0 < number < 2**31 for number in found)
    assert found == [each.series_number(n) for each in others for n in (None, 2, 3, 1002, -4)]
    assert DERIVATION.series_number(2) % 1000 == 2


def test_the_sources_dates_of_making_are_left_out(tmp_path: Path) -> None:
    def change(ds: Dataset, i: int) -> None:
        ds.SeriesTime = ds.InstanceCreationTime = ds.ContentTime = "101010"
        ds.InstanceCreationDate, ds.AcquisitionTime = "20200102", "101010"

    header = derived(tmp_path, change)
    assert [keyword for keyword in MADE_WHEN if keyword in header] == []
    assert (header.StudyDate, header.AcquisitionDate) == ("20200102", "20200102")


def test_one_time_for_all_slices_shards_and_runs(run: Run, model: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for i in range(4):
        stored = stored_values(2) + i
        write_series(tree / f"scan{i}", 2, stored=stored, series=f"1.2.{i}")
    out = tmp_path / "out"
    for index in (1, 2):
        code, _, err = run(
            "harmonize", tree, "--model", model, "--out", out,
            "--shard", f"{index}/2", "--timestamp", "now",
        )  # fmt: skip
        assert code == 0, err
        stamp = out / "timestamp.json"
        if index == 1:
            assert stamp.is_file()
            stamp.write_text('{"timestamp": "20010203040506"}')
            for name in ("plan-1of2.json",):
                plan = json.loads((out / name).read_text())
                (out / name).write_text(json.dumps({**plan, "timestamp": "20010203040506"}))
    second = json.loads((out / "manifest-2of2.json").read_text())["figures"]["series"]
    for row in second:
        for file in (out / row["folder"]).glob("*.dcm"):
            ds = dcmread(file)
            assert {ds.get(word) for word in MADE_WHEN} == {"20010203", "040506"}
    assert second


def test_a_given_time_shapes_uids_and_is_kept(run: Run, model: Path, tmp_path: Path) -> None:
    source = write_series(tmp_path / "in", 2)
    uids = []
    for name, words in (
        ("none", ()),
        ("iso", ("--timestamp", "2026-11-28T09:30")),
        ("again", ("--timestamp", "2026-11-28T09:30:00")),
        ("later", ("--timestamp", "2026-11-28T09:31")),
    ):
        code, _, err = run("harmonize", source, "--model", model, "--out", tmp_path / name, *words)
        assert code == 0, err
        uids.append(sorted(dcmread(f).SOPInstanceUID for f in (tmp_path / name).rglob("*.dcm")))
    assert uids[1] == uids[2]
    assert len({tuple(each) for each in uids}) == 3


@pytest.mark.parametrize(
    "given", ["yesterday", "2026-13-01", "2026-11-28T09:30+02:00", "0001-01-01"]
)
def test_other_times_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match="expected now, or a local time"):
        parse_timestamp(given)


def test_what_was_harmonized_is_not_harmonized_again(run: Run, model: Path, tmp_path: Path) -> None:
    source = write_series(tmp_path / "in", 3)
    (tmp_path / "nifti").mkdir()
    write_scan(tmp_path / "nifti" / "a.nii.gz")
    for name, scans, further in (
        ("plain", source, ()),
        ("kept", source, ("--keep-equipment",)),
        ("twin", source, ("--nifti",)),
        ("nifti", tmp_path / "nifti", ()),
    ):
        first, second = tmp_path / f"{name}1", tmp_path / f"{name}2"
        assert run("harmonize", scans, "--model", model, "--out", first, *further)[0] == 0
        code, _, err = run("harmonize", first, "--model", model, "--out", second)
        assert code == 1
        assert "derived by cvsct already" in err
        assert not second.exists()
        code, _, err = run("harmonize", first, "--model", model, "--out", second, "--force")
        assert code == 0, err
        assert all(is_harmonized(series) for series in find_series(second))
    assert not is_derived_here(dcmread(next(source.iterdir())))


def test_out_inside_the_input_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    source = write_series(tmp_path / "in" / "scan", 2)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "in")
    for out in (source / "out", tmp_path / "in" / "out", link / "out"):
        code, _, err = run("harmonize", tmp_path / "in", "--model", model, "--out", out)
        assert (code, "lies inside INPUT" in err) == (2, True)
        assert not out.exists()


def test_swapped_scans_and_model_are_told(run: Run, model: Path, tmp_path: Path) -> None:
    source = write_series(tmp_path / "in", 2)
    code, _, err = run("harmonize", model, "--model", source, "--out", tmp_path / "out")
    assert code == 2
    assert "the scans come first" in err


def test_nifti_names_that_collide_are_told_apart(run: Run, model: Path, tmp_path: Path) -> None:
    for number, folder in enumerate(("a", "b", "c")):
        (tmp_path / "in" / folder).mkdir(parents=True)
        name = "SCAN.nii.gz" if folder == "b" else "scan.nii.gz"
        write_scan(tmp_path / "in" / folder / name, scaling=(1, float(number)))
    write_scan(tmp_path / "in" / "ct_01.nii", scaling=(1, 7.0))
    out = tmp_path / "out"
    code, _, err = run("harmonize", tmp_path / "in", "--model", model, "--out", out)
    assert code == 0, err
    names = sorted(path.name for path in out.rglob("*.nii*"))
    assert len({name.lower() for name in names}) == 4
    assert "ct_01_harmonized.nii" in names
    rows = json.loads((out / "manifest.json").read_text())["figures"]["series"]
    told = {(row["input"], row["file"]) for row in rows}
    assert ("ct_01.nii", "ct_01_harmonized.nii") in told
    assert sorted(file for _, file in told) == names
    for row in rows:
        assert (out / row["folder"] / row["file"]).is_file()


def test_what_may_identify_is_the_users_alone(run: Run, model: Path, tmp_path: Path) -> None:
    source = write_series(tmp_path / "in", 2)
    out = tmp_path / "out"
    assert run("harmonize", source, "--model", model, "--out", out, "--nifti")[0] == 0
    local = json.loads((out / "manifest.json").read_text())["may_identify_patients"]
    private = {path for pattern in local for path in out.glob(pattern)}
    assert {path.suffix for path in private} == {".dcm", ".gz", ".json"}
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert out / "manifest.json" not in private
