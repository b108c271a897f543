"""Images that share a SOP Instance UID: none is lost, and copies are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from cvsct.inference.cohort.shards import Shard, by_key
from cvsct.io.dicom.uids import uid_of
from cvsct.io.dicom.write import DerivedWriter
from cvsct.io.read import find_series
from cvsct.io.series import open_series
from tests.io.test_enhanced import enhanced
from tests.support.commands import Run
from tests.support.dicom_files import DERIVATION, stored_values, write_series, write_slice

Change = Callable[[Dataset, int], None]


def same_uid(*which: int) -> Change:
    """The slices of these numbers share one UID; all where none is named."""

    def change(ds: Dataset, i: int) -> None:
        if not which or i in which:
            ds.SOPInstanceUID = "1.2.840.77"

    return change


def derived_uids(folder: Path) -> dict[tuple[str, float], str]:
    """Derived SOP Instance UID by derived series and position."""
    headers = [dcmread(file) for file in folder.rglob("*.dcm")]
    return {
        (ds.SeriesInstanceUID, float(ds.ImagePositionPatient[2])): ds.SOPInstanceUID
        for ds in headers
    }


@pytest.mark.parametrize("which", [(), (1, 2), (0, 3)])
def test_every_slice_of_a_series_with_equal_uids_is_written(
    run: Run, model: Path, tmp_path: Path, which: tuple[int, ...]
) -> None:
    source = write_series(tmp_path / "in", 4, change=same_uid(*which))
    code, out, err = run(
        "harmonize", source, "--model", model, "--out", tmp_path / "out", "--nifti"
    )
    assert code == 0, err
    assert "1 series, 4 slices" in out
    files = list((tmp_path / "out").rglob("*.dcm"))
    assert len(files) == 4
    assert len({dcmread(file).SOPInstanceUID for file in files}) == 4
    (place,) = (tmp_path / "out").rglob("uid_map.json")
    assert len(json.loads(place.read_text())["instances"]) == 4
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 1


def test_uids_that_are_unique_stay_what_they_were(run: Run, model: Path, tmp_path: Path) -> None:
    """A sound series beside unsound ones is derived as it would be alone."""
    alone = write_series(tmp_path / "alone", 3, series="1.2.5")
    tree = tmp_path / "tree"
    write_series(tree / "a", 3, series="1.2.5")
    write_series(tree / "b", 3, series="1.2.6", change=same_uid())
    for name, scans in (("one", alone), ("all", tree)):
        assert run("harmonize", scans, "--model", model, "--out", tmp_path / name)[0] == 0
    assert derived_uids(tmp_path / "one").items() <= derived_uids(tmp_path / "all").items()
    stack = open_series(find_series(alone)[0])
    derivation = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert derivation["figures"]["series"][0]["source_series_uid"] == stack.series_uid
    assert DERIVATION.uid("1.2", "instance") == uid_of(
        "instance", "1.2", "ab" * 32, "cd" * 32, DERIVATION.target, False
    ), "sound input keeps the UIDs of 0.1.0"


def test_two_patients_with_equal_uids_get_their_own(run: Run, model: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number, name in enumerate(("a", "b", "c")):
        stored = stored_values(3) + number

        def change(ds: Dataset, i: int, number: int = number) -> None:
            ds.SOPInstanceUID = f"1.2.3.{i}"
            ds.PatientID = f"P{number}"
            ds.StudyInstanceUID = f"1.9.{number}"

        write_series(tree / name, 3, stored=stored, series=f"1.2.{number}", change=change)
    assert run("harmonize", tree, "--model", model, "--out", tmp_path / "all")[0] == 0
    together = derived_uids(tmp_path / "all")
    assert len(set(together.values())) == 9
    sharded = tmp_path / "sharded"
    for index in (2, 1, 3):
        words = ("--out", sharded, "--shard", f"{index}/3")
        code, _, err = run("harmonize", tree, "--model", model, *words)
        assert code == 0, err
    assert derived_uids(sharded) == together, "each shard alone gives what all give together"


def test_equal_uids_of_multi_frame_files(run: Run, model: Path, tmp_path: Path) -> None:
    for number in range(2):
        frames = enhanced()
        frames.SeriesInstanceUID, frames.SOPInstanceUID = f"1.2.{number}", "1.2.840.5"
        values = np.frombuffer(frames.PixelData, "<u2") + number
        frames.PixelData = values.astype("<u2").tobytes()
        write_slice(tmp_path / "in" / f"frames{number}.dcm", frames)
    code, _, err = run("harmonize", tmp_path / "in", "--model", model, "--out", tmp_path / "out")
    assert code == 0, err
    files = list((tmp_path / "out").rglob("*.dcm"))
    assert len({dcmread(file).SOPInstanceUID for file in files}) == len(files) > 2


def test_copies_in_two_series_are_both_refused_by_name(
    run: Run, model: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    for name, series in (("one", "1.2.1"), ("two", "1.2.2")):
        write_series(tree / name, 3, series=series, change=same_uid(1))
    write_series(tree / "three", 3, series="1.2.3")
    code, out, err = run("inspect", tree)
    assert code == 3
    assert err.count("the same image as") == 2
    code, out, err = run("harmonize", tree, "--model", model, "--out", tmp_path / "out")
    assert code == 3
    assert "1 series, 3 slices" in out
    assert err.count("the same image as") == 1
    assert "(and 1 more like it)" in err
    first, second = find_series(tree)[:2]
    shards = [by_key([first, second], tree, Shard(i, 2)) for i in (1, 2)]
    assert all(each.refused for part in shards for each in part.values())


def test_uids_depend_on_place_and_pixels_alone(tmp_path: Path) -> None:
    """Not on the patient, the order of files, their names, or how they are compressed."""
    found = []
    for name, patient in (("a", "P1"), ("b", "P2")):

        def change(ds: Dataset, i: int, patient: str = patient) -> None:
            ds.SOPInstanceUID, ds.PatientID = "1.2.840.9", patient

        folder = write_series(tmp_path / name, 3, change=change)
        if name == "b":
            for file, other in zip(sorted(folder.iterdir()), "zyx", strict=True):
                file.rename(folder / other)
        (series,) = find_series(folder)
        volume = open_series(series).read()
        writer = DerivedWriter(tmp_path / f"out-{name}", DERIVATION, 3, series.repeated)
        writer.write(volume, volume.hu)
        found.append(writer.finish().uid_map["instances"])
    assert found[0] == found[1]
