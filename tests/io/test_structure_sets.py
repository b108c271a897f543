"""RT structure sets with what planning systems leave in them: measured, cut, left out, named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from cvsct.core.errors import CvsctError, GeometryError, SeriesError
from cvsct.core.masks import MaskedRegion
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.write import write_derived
from cvsct.io.masks import read_masks, read_target_masks
from cvsct.io.read import find_series, read_series
from tests.support.dicom_files import DERIVATION, only, write_series
from tests.support.structure_sets import Contour, ring, rings, save_structures

FOREIGN = "1.2.9.9"


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> CTVolume:
    """Five slices of 40 rows and 36 columns; image `i` is called 1.2.3.4.(i + 1)."""
    folder = write_series(tmp_path_factory.mktemp("series"), 5)
    return read_series(find_series(folder)[0])


def sizes(regions: tuple[MaskedRegion, ...]) -> dict[str, dict[int, int]]:
    """Voxels of each structure and slice."""
    found: dict[str, dict[int, int]] = {}
    for one in regions:
        found.setdefault(one.label, {})[one.slice_index] = int(one.mask.sum())
    return found


def read(path: Path, volume: CTVolume, *labels: str) -> tuple[dict[str, dict[int, int]], str]:
    """Voxels by structure and slice, and what was noted."""
    remarks: list[str] = []
    return sizes(read_masks(path, volume, labels, remarks.append)), "\n".join(remarks)


GTV = rings([1, 2, 3], 18, 16, 5)


@pytest.fixture(scope="module")
def alone(volume: CTVolume, tmp_path_factory: pytest.TempPathFactory) -> dict[int, int]:
    """Voxels of the sound structure by itself."""
    path = save_structures(tmp_path_factory.mktemp("rs") / "r.dcm", volume, {"GTV": GTV})
    found, noted = read(path, volume)
    assert noted == ""
    assert sorted(found["GTV"]) == [1, 2, 3]
    return found["GTV"]


def test_a_body_outline_that_leaves_the_image_is_cut_to_it(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int]
) -> None:
    body = rings(range(5), 20, 18, 24)
    found, noted = read(
        save_structures(tmp_path / "r.dcm", volume, {"GTV": GTV, "External": body}), volume
    )
    assert found["GTV"] == alone
    y, x = np.mgrid[:40, :36]
    inside = int((np.hypot(y - 20, x - 18) < 24).sum())
    assert found["External"] == pytest.approx(dict.fromkeys(range(5), inside), abs=4)
    assert "cut to the image: 'External' (5 of 5 contours)" in noted
    assert "GTV" not in noted


def test_a_couch_outside_the_image_is_left_out_and_named(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int]
) -> None:
    couch = rings(range(5), 60, 18, 10)
    above = rings([7, 8], 18, 16, 5)
    path = save_structures(tmp_path / "r.dcm", volume, {"Couch": couch, "GTV": GTV, "Head": above})
    found, noted = read(path, volume)
    assert found == {"GTV": alone}
    assert "'Couch' (all of 5 contours lie outside the image)" in noted
    assert "'Head' (all of 2 contours lie outside the image)" in noted


def test_contours_above_and_below_the_image_are_counted(tmp_path: Path, volume: CTVolume) -> None:
    path = save_structures(tmp_path / "r.dcm", volume, {"Lung": rings(range(-2, 7), 18, 16, 5)})
    found, noted = read(path, volume)
    assert sorted(found["Lung"]) == [0, 1, 2, 3, 4]
    assert "lie outside the image: 'Lung' (4 of 9)" in noted


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (Contour(["1", "2", "10"]), "enclose nothing"),
        (Contour(["1", "2", "10", "9", "2", "10"]), "enclose nothing"),
        (Contour(["4", "4", "10"] * 5), "enclose nothing"),
        (Contour(ring(2, 10, 10, 4, 3)[[0, 1, 0, 1]]), "enclose nothing"),
        (Contour(np.array([[2, 8, 8], [2, 9, 9], [2, 12, 12]])), "enclose nothing"),
        (Contour(ring(2, 10, 10, 4), "OPEN_PLANAR"), "enclose nothing"),
        (Contour(ring(2, 10, 10, 4)[:1], "POINT"), "enclose nothing"),
        (Contour([]), "enclose nothing"),
        (Contour(ring(2, 10.5, 10.5, 0.1)), "enclose no voxel's center"),
        (Contour(ring(2.5, 10, 10, 4)), "lie in no slice"),
        (Contour(ring(2.2, 10, 10, 4)), "lie in no slice"),
        (Contour(ring(2, 10, 10, 4) + np.linspace(0, 1, 200)[:, None] * [1, 0, 0]), "in no slice"),
        (Contour(["1", "2", "10", "9", "2", "10", "5", "9"]), "damaged"),
        (Contour(["1", "2", "10", "9", "2", "10", "5", "9", "1e300"]), "damaged"),
        (Contour(ring(2, 10, 10, 4), points=400), "damaged"),
        (Contour(ring(2, 18, 16, 5)), "repeat another one"),
    ],
)
def test_an_odd_contour_is_left_out_and_the_rest_measured(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int], odd: Contour, reason: str
) -> None:
    path = save_structures(tmp_path / "r.dcm", volume, {"GTV": [*GTV, odd]})
    found, noted = read(path, volume)
    assert found["GTV"] == alone
    assert f"{reason}" in noted
    assert "'GTV' (1 of 4)" in noted


def test_numbers_that_are_none_are_damage(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int]
) -> None:
    path = save_structures(tmp_path / "r.dcm", volume, {"GTV": [*GTV, Contour(["71.125"] * 9)]})
    path.write_bytes(path.read_bytes().replace(b"71.125", b"7x.125"))
    found, noted = read(path, volume)
    assert found["GTV"] == alone
    assert "are damaged" in noted


def test_exclusive_or_contours_take_each_other_out(tmp_path: Path, volume: CTVolume) -> None:
    outer, inner = (Contour(ring(2, 18, 16, r), "CLOSEDPLANAR_XOR") for r in (9.3, 4.2))
    found, noted = read(
        save_structures(tmp_path / "r.dcm", volume, {"Ring": [outer, inner]}), volume
    )
    assert found["Ring"][2] == pytest.approx(np.pi * (9.3**2 - 4.2**2), rel=0.03)
    assert noted == ""


def test_structures_without_contours_and_contours_of_none_are_named(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int]
) -> None:
    def unlist(ds: Dataset) -> None:
        ds.ROIContourSequence[1].ReferencedROINumber = 77

    path = save_structures(
        tmp_path / "r.dcm", volume, {"GTV": GTV, "Ghost": GTV[:2], "POI": None, "PTV": []},
        change=unlist,
    )  # fmt: skip
    found, noted = read(path, volume)
    assert found == {"GTV": alone}
    for name in ("Ghost", "POI", "PTV"):
        assert f"'{name}' (without contours)" in noted
    assert "2 contours of an ROI that it does not list" in noted


def test_a_structure_on_another_slicing_is_left_out_and_a_file_of_such_refused(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int]
) -> None:
    between = rings([0.5, 1.5, 2.5], 18, 16, 5)
    found, noted = read(
        save_structures(tmp_path / "r.dcm", volume, {"Old": between, "GTV": GTV}), volume
    )
    assert found == {"GTV": alone}
    assert "'Old' (all of 3 contours lie in no slice" in noted
    path = save_structures(tmp_path / "s.dcm", volume, {"Old": between, "Older": between})
    with pytest.raises(GeometryError, match="every structure lies in no slice of the image"):
        read_masks(path, volume)


def naming(volume: CTVolume, planes: list[int], shift: int = 0) -> list[Contour]:
    """Circles that name their images, or those `shift` slices on."""
    return [
        Contour(ring(i, 18, 16, 5), image=str(volume.headers[i + shift].SOPInstanceUID))
        for i in planes
    ]


def test_a_foreign_frame_is_taken_where_contours_name_the_images(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int]
) -> None:
    path = save_structures(
        tmp_path / "r.dcm", volume, {"GTV": naming(volume, [1, 2, 3])}, frame=FOREIGN
    )
    found, noted = read(path, volume)
    assert found["GTV"] == alone
    assert "contours name images of this series" in noted
    for contours in (GTV, [replace(each, image="1.2.77") for each in GTV]):
        stranger = save_structures(tmp_path / "s.dcm", volume, {"GTV": contours}, frame=FOREIGN)
        with pytest.raises(GeometryError, match="another frame of reference"):
            read_masks(stranger, volume)


def test_of_a_foreign_frame_only_contours_that_name_their_own_image_are_taken(
    tmp_path: Path, volume: CTVolume
) -> None:
    mixed = [*naming(volume, [1]), GTV[1], *naming(volume, [3], shift=-1)]
    found, noted = read(
        save_structures(tmp_path / "r.dcm", volume, {"GTV": mixed}, frame=FOREIGN), volume
    )
    assert sorted(found["GTV"]) == [1]
    assert "name no image of this series: 'GTV' (1 of 3)" in noted
    assert "lie elsewhere than the image they name: 'GTV' (1 of 3)" in noted
    path = save_structures(
        tmp_path / "s.dcm", volume, {"GTV": naming(volume, [2, 3], shift=1)}, frame=FOREIGN
    )
    with pytest.raises(GeometryError, match="lies elsewhere than the images"):
        read_masks(path, volume)


def test_in_the_own_frame_the_place_counts_and_a_wrong_name_is_told(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int]
) -> None:
    contours = naming(volume, [1, 2, 3], shift=1)
    found, noted = read(save_structures(tmp_path / "r.dcm", volume, {"GTV": contours}), volume)
    assert found["GTV"] == alone
    assert "name another image of the series than the one at their place" in noted
    assert "'GTV' (3)" in noted


def test_masks_of_the_source_fit_the_harmonized_images(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int]
) -> None:
    write_derived(volume, volume.hu + 5, tmp_path / "h", DERIVATION)
    harmonized = only(tmp_path / "h")
    path = save_structures(
        tmp_path / "r.dcm", volume, {"GTV": naming(volume, [1, 2, 3])}, frame=FOREIGN
    )
    found, noted = read(path, harmonized)
    assert found["GTV"] == alone
    assert "contours name images of this series" in noted


def test_without_a_frame_of_reference_the_note_says_so(
    tmp_path: Path, volume: CTVolume, alone: dict[int, int]
) -> None:
    found, noted = read(save_structures(tmp_path / "r.dcm", volume, {"GTV": GTV}, frame=""), volume)
    assert found["GTV"] == alone
    assert "placed by position alone" in noted


def test_structures_are_chosen_by_name_or_pattern(tmp_path: Path, volume: CTVolume) -> None:
    small = rings([2], 10, 10, 3)
    path = save_structures(
        tmp_path / "r.dcm", volume,
        {"GTV_1": GTV, "Lung_L": small, "gtv [2]": small, "Couch": rings([2], 90, 9, 3)},
    )  # fmt: skip
    assert list(read(path, volume, "lung_*", "GTV_1")[0]) == ["Lung_L", "GTV_1"]
    found, noted = read(path, volume, "gtv*")
    assert list(found) == ["GTV_1", "gtv [2]"]
    assert noted == ""  # what was not asked for is not complained about
    assert list(read(path, volume, "gtv [2]")[0]) == ["gtv [2]"]
    with pytest.raises(SeriesError, match="no label 'GTV_l'; did you mean 'GTV_1'"):
        read_masks(path, volume, ["GTV_l"])
    with pytest.raises(SeriesError, match=r"choose from GTV_1, Lung_L, gtv \[2\], Couch"):
        read_masks(path, volume, ["Heart"])
    with pytest.raises(GeometryError, match="structure 'Couch' lies outside the image"):
        read_masks(path, volume, ["couch"])


def test_a_choice_counts_over_all_files(tmp_path: Path, volume: CTVolume) -> None:
    one = save_structures(tmp_path / "a.dcm", volume, {"GTV": GTV})
    two = save_structures(tmp_path / "b.dcm", volume, {"Lung": GTV})
    found = read_target_masks([one, two], [volume], ["lung", "gtv"], print)
    assert [each.label for each in found[0]] == ["GTV"] * 3 + ["Lung"] * 3
    with pytest.raises(SeriesError, match="no label 'Heart'; choose from GTV, Lung"):
        read_target_masks([one, two], [volume], ["GTV", "Heart"], print)


def test_of_several_targets_the_one_that_contours_name_is_measured(
    tmp_path: Path, volume: CTVolume
) -> None:
    """The other shares the frame of reference and some of the heights."""
    write_series(tmp_path / "thick", 3, series="1.2.3.9", change=_every_other)
    thick = only(tmp_path / "thick")
    path = save_structures(tmp_path / "r.dcm", volume, {"GTV": naming(volume, [1, 2, 3])})
    remarks: list[str] = []
    assert list(read_target_masks([path], [thick, volume], (), remarks.append)) == [1]
    assert remarks == []


def _every_other(ds: Dataset, i: int) -> None:
    x, y, _ = ds.ImagePositionPatient
    ds.ImagePositionPatient = [x, y, f"{10.0 * i:g}"]
    ds.SliceThickness = 10


def test_a_damaged_file_is_refused_by_name(tmp_path: Path, volume: CTVolume) -> None:
    path = save_structures(
        tmp_path / "rs.dcm", volume, {"GTV": [Contour(["1", "2", "3", "4"])], "PTV": None}
    )
    with pytest.raises(SeriesError, match=r"rs\.dcm: the contours of every structure are damaged"):
        read_masks(path, volume)
    for structures in ({}, {"GTV": None}, {"GTV": [Contour(ring(2, 9, 9, 4), "POINT")]}):
        with pytest.raises(CvsctError, match="the mask is empty"):
            read_masks(save_structures(path, volume, structures), volume)
