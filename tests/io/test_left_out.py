"""What commands say of files they do not read, and exit code 3 where a scan may be incomplete."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from cvsct.io.read import read_all
from tests.support.commands import Run
from tests.support.dicom_files import slice_dataset, stored_values, write_series, write_slice
from tests.support.nifti_files import write_scan

LEFT_OUT = re.compile(r"^left out( of the \w+ scans)?: (?!/)(.*)$", re.MULTILINE)
INCOMPLETE = re.compile(
    r"^warning: a scan may be incomplete, left out( of the \w+ scans)?: (.*)$", re.MULTILINE
)


def junk(folder: Path) -> Path:
    """A scan among what lies beside scans."""
    ds = slice_dataset(0, stored_values(1)[0])
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"
    write_slice(folder / "rs1.dcm", ds)
    write_slice(folder / "rs2.dcm", ds)
    write_scan(folder / "Doe_John_lung.nii.gz")
    (folder / "Doe_John.zip").write_bytes(b"PK\x03\x04")
    return folder


SAID = (
    "2 RT structure sets; "
    "1 NIfTI beside DICOM (name it, or a folder without DICOM, to use it); "
    "1 zip archive (unpack it)"
)


def bare(source: Path, folder: Path, lost: int) -> Path:
    """The scan as IM1, IM2 ..., the last of which are empty."""
    folder.mkdir(parents=True)
    files = sorted(source.iterdir(), reverse=True)
    for i, file in enumerate(files, 1):
        shutil.copy(file, folder / f"IM{i}")
        if i > len(files) - lost:
            (folder / f"IM{i}").write_bytes(b"")
    return folder


def test_nothing_is_said_where_nothing_was_left_out(run: Run, tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    code, _, err = run("inspect", tmp_path)
    assert (code, err) == (0, "reading 1/1\n")


def test_inspect_tells_on_the_terminal_and_its_json_stays_a_list(run: Run, tmp_path: Path) -> None:
    write_series(junk(tmp_path))
    code, printed, err = run("inspect", tmp_path, "--json")
    assert code == 0, err
    assert len(json.loads(printed)) == 1
    assert LEFT_OUT.findall(err) == [("", SAID)]
    assert "Doe" not in printed + err


def test_inspect_ends_with_3_where_slices_were_lost(run: Run, scans: Path, tmp_path: Path) -> None:
    bare(scans / "sharp", tmp_path / "in", lost=2)
    code, printed, err = run("inspect", tmp_path / "in", "--json")
    assert code == 3
    assert json.loads(printed)[0]["slices"] == 4
    ((_, said),) = INCOMPLETE.findall(err)
    assert said == "2 empty files named like slices: IM5, IM6 (copy them again)"


@pytest.mark.parametrize("many", [False, True])
def test_harmonize_writes_what_is_there_and_ends_with_3(
    run: Run, scans: Path, model: Path, tmp_path: Path, many: bool
) -> None:
    bare(scans / "sharp", tmp_path / "in" / "a", lost=1)
    if many:
        bare(scans / "soft", tmp_path / "in" / "b", lost=0)
    junk(tmp_path / "in")
    code, _, err = run("harmonize", tmp_path / "in", "--model", model, "--out", tmp_path / "out")
    assert code == 3
    assert LEFT_OUT.findall(err) == [("", SAID)]
    assert INCOMPLETE.findall(err) == [("", "1 empty file named like a slice: IM6 (copy it again)")]
    assert sorted(len(v.hu) for v in read_all(tmp_path / "out")) == ([5, 6] if many else [5])
    told = (tmp_path / "out" / "manifest.json").read_text() + err
    assert "Doe" not in told


def test_harmonize_of_whole_scans_ends_with_0(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    bare(scans / "sharp", tmp_path / "in" / "a", lost=0)
    junk(tmp_path / "in")
    code, _, err = run("harmonize", tmp_path / "in", "--model", model, "--out", tmp_path / "out")
    assert code == 0, err
    assert "incomplete" not in err


def test_a_linked_cohort_is_harmonized_whole(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("sharp", "soft"):
        (tmp_path / "in" / name).symlink_to(scans / name)
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    out = tmp_path.parent / f"{tmp_path.name}_out"
    code, _, err = run("harmonize", tmp_path / "in", "--model", model, "--out", out)
    assert code == 0, err
    assert LEFT_OUT.findall(err) == [("", "1 linked folder that leads back")]
    assert len(read_all(out)) == 2


def test_train_and_evaluate_tell_each_of_their_sides(run: Run, scans: Path, tmp_path: Path) -> None:
    shutil.copytree(scans / "sharp", tmp_path / "sharp")
    junk(tmp_path / "sharp")
    bare(scans / "soft", tmp_path / "soft", lost=1)
    sides = ("--source", tmp_path / "sharp", "--target", tmp_path / "soft")
    code, _, err = run("train", "input", *sides, "--out", tmp_path / "model")
    assert code == 3, err
    assert LEFT_OUT.findall(err) == [(" of the source scans", SAID)]
    assert INCOMPLETE.findall(err) == [
        (" of the target scans", "1 empty file named like a slice: IM6 (copy it again)")
    ]
    assert (tmp_path / "model" / "manifest.json").is_file()
    sides = ("--harmonized", scans / "soft", "--target", tmp_path / "sharp")
    code, _, err = run("evaluate", *sides, "--out", tmp_path / "report", "--no-cache")
    assert code == 0, err
    assert LEFT_OUT.findall(err) == [(" of the target scans", SAID)]


@pytest.mark.slow
def test_a_benchmark_tells_once_what_many_commands_find(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    for part in ("train", "test"):
        for name in ("sharp", "soft"):
            shutil.copytree(scans / name, tmp_path / "data" / part / name)
    junk(tmp_path / "data" / "test" / "soft")
    code, _, err = run(
        "benchmark", "--data", tmp_path / "data", "--methods", "input",
        "--out", tmp_path / "out", "--rois", "3", "--workers", "1",
    )  # fmt: skip
    assert LEFT_OUT.findall(err) == [("", SAID)], code


def test_verbose_tells_paths_of_what_was_left_out_and_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "Anna"
    write_series(junk(folder / "scan"))
    first = write_scan(tmp_path / "nifti" / "Doe_John.nii")
    shutil.copy(first, tmp_path / "nifti" / "Doe_Jane.nii")
    code, _, err = run("--verbose", "inspect", folder)
    assert code == 0
    assert f"left out: {folder / 'scan' / 'Doe_John.zip'} (zip archive)" in err
    assert f"left out: {folder / 'scan' / 'rs1.dcm'} (RT structure set)" in err
    code, _, err = run("--verbose", "inspect", tmp_path / "nifti")
    assert code == 1
    for name in ("Doe_John", "Doe_Jane"):
        assert f".nii is {tmp_path / 'nifti' / name}.nii]" in err
    code, _, err = run("inspect", tmp_path / "nifti")
    assert "Doe" not in err
    code, _, err = run("--verbose", "inspect", folder / "scan" / "Doe_John.zip")
    assert "zip archive, which is not read; unpack it [file-" in err


def test_an_incomplete_scan_is_forgotten_with_its_run(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    bare(scans / "sharp", tmp_path / "in", lost=1)
    assert run("inspect", tmp_path / "in")[0] == 3
    assert run("inspect", scans / "sharp")[0] == 0
    assert run("inspect", tmp_path / "in")[0] == 3
    assert run("--help")[0] == 0


def test_refused_series_and_lost_slices_end_with_one_code(run: Run, tmp_path: Path) -> None:
    write_series(tmp_path / "a", series="1.2.1")
    (tmp_path / "a" / "005.part").write_bytes(bytes(90))
    (tmp_path / "a" / "006.dcm").write_bytes(b"")
    code, _, err = run("inspect", tmp_path)
    assert code == 3
    assert "series 2: 006.dcm: not a DICOM file (empty file); copy it again" in err
    for file in (tmp_path / "a").glob("00[1-4].dcm"):
        file.unlink()
    code, _, err = run("inspect", tmp_path)
    assert code == 1, "nothing can be read"
