"""Masks from files: the right voxels, whatever the axes, and refusals of what does not fit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes

from cvsct.errors import CvsctError, GeometryError, MissingExtraError, SeriesError
from cvsct.evaluation.radiomics import extract
from cvsct.evaluation.roi import patch_of
from cvsct.io.dicom import find_series, read_series
from cvsct.io.mask_grid import on_grid
from cvsct.io.masks import read_masks
from cvsct.io.space import volume_affine
from cvsct.regions import MaskedRegion
from cvsct.volume import CTVolume
from tests.conftest import make_volume
from tests.dicom_files import write_series

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("series")
    write_series(out, 5)
    return out


@pytest.fixture(scope="module")
def volume(folder: Path) -> CTVolume:
    return read_series(find_series(folder)[0])


@pytest.fixture(scope="module")
def drawn(volume: CTVolume) -> np.ndarray:
    """Two labels that touch no edge and are symmetric in no axis."""
    labels = np.zeros(volume.hu.shape, np.uint8)
    labels[1:3, 4:10, 6:9] = 1
    labels[2, 4:6, 6:9] = 0
    labels[3, 20:22, 15:30] = 2
    return labels


def laid(regions: tuple[MaskedRegion, ...], shape: tuple[int, ...], label: str) -> np.ndarray:
    out = np.zeros(shape, bool)
    for one in regions:
        if one.label == label:
            one.cut(out)[one.mask] = True
    return out


def save_nifti(path: Path, labels: np.ndarray, volume: CTVolume, **change: Any) -> Path:
    """Labels in the volume's order, stored with the axes `order`, some of them turned around."""
    order, turned = change.get("order", (0, 1, 2)), change.get("turned", ())
    affine = FLIP @ volume_affine(volume)
    values = labels.transpose(order)
    affine = affine[:, [*order, 3]]
    for axis in turned:
        values = np.flip(values, axis)
        affine[:, 3] += affine[:, axis] * (values.shape[axis] - 1)
        affine[:, axis] *= -1
    affine[:3, 3] += change.get("moved_mm", 0.0)
    affine[:3, :3] *= change.get("zoom", 1.0)
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units(change.get("units", "mm"))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("order", "turned"), [((0, 1, 2), ()), ((2, 1, 0), ()), ((2, 1, 0), (0, 1)), ((1, 2, 0), (2,))]
)
def test_nifti_in_any_axis_order(
    tmp_path: Path, volume: CTVolume, drawn: np.ndarray, suffix: str,
    order: tuple[int, ...], turned: tuple[int, ...],
) -> None:  # fmt: skip
    path = save_nifti(tmp_path / f"m{suffix}", drawn, volume, order=order, turned=turned)
    regions = read_masks(path, volume)
    assert [(one.label, one.slice_index) for one in regions] == [("1", 1), ("1", 2), ("2", 3)]
    for label in (1, 2):
        assert np.array_equal(laid(regions, drawn.shape, str(label)), drawn == label)
    assert regions[0].mask.shape == (6, 3)


def test_a_smaller_nifti_grid_that_coincides_is_shifted_into_place(
    tmp_path: Path, volume: CTVolume, drawn: np.ndarray
) -> None:
    affine = FLIP @ volume_affine(volume)
    affine[:3, 3] += affine[:3, :3] @ [1, 2, 3]
    nib.save(nib.Nifti1Image(drawn[1:4, 2:30, 3:32], affine), tmp_path / "m.nii")
    regions = read_masks(tmp_path / "m.nii", volume)
    assert np.array_equal(laid(regions, drawn.shape, "1"), drawn == 1)
    assert np.array_equal(laid(regions, drawn.shape, "2"), drawn == 2)


def test_one_slice_alone_has_no_spacing_to_compare(
    tmp_path: Path, volume: CTVolume, drawn: np.ndarray
) -> None:
    affine = FLIP @ volume_affine(volume)
    affine[:3, 3] += affine[:3, :3] @ [3, 0, 0]
    affine[:3, 0] /= 4  # many programs write 1 mm there
    nib.save(nib.Nifti1Image(drawn[3:4], affine), tmp_path / "m.nii")
    assert [one.slice_index for one in read_masks(tmp_path / "m.nii", volume)] == [3]
    assert read_masks(tmp_path / "m.nii", volume.select([3]))[0].slice_index == 0


def test_chosen_labels_in_the_order_asked_for(
    tmp_path: Path, volume: CTVolume, drawn: np.ndarray
) -> None:
    path = save_nifti(tmp_path / "m.nii", drawn, volume)
    assert [one.label for one in read_masks(path, volume, ["2", "1"])] == ["2", "1", "1"]
    with pytest.raises(SeriesError, match="no label '7'; choose from 1, 2"):
        read_masks(path, volume, ["7"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"moved_mm": 0.3}, "another grid"),
        ({"zoom": 1.1}, "another grid"),
        ({"moved_mm": 5000.0 * 0.8}, "outside the image|another grid"),
        ({"units": "micron"}, "does not say where it lies"),
    ],
)
def test_nifti_that_does_not_fit_is_refused(
    tmp_path: Path, volume: CTVolume, drawn: np.ndarray, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(GeometryError, match=reason):
        read_masks(save_nifti(tmp_path / "m.nii", drawn, volume, **change), volume)


def test_a_mask_that_reaches_outside_is_refused(
    tmp_path: Path, volume: CTVolume, drawn: np.ndarray
) -> None:
    path = save_nifti(tmp_path / "m.nii", drawn, volume)
    with pytest.raises(GeometryError, match="label '2' reaches outside the image"):
        read_masks(path, volume.select([0, 1, 2]))


def test_nifti_that_is_no_mask_is_refused(
    tmp_path: Path, volume: CTVolume, drawn: np.ndarray
) -> None:
    def refused(values: np.ndarray, reason: str, error: type[CvsctError] = SeriesError) -> None:
        path = save_nifti(tmp_path / "m.nii", values, volume)
        with pytest.raises(error, match=reason):
            read_masks(path, volume)

    refused(np.zeros_like(drawn), "empty", GeometryError)
    refused(drawn * np.float32(0.5), "no labels")
    refused(volume.hu.astype(np.float32), "no labels")
    refused(np.where(drawn == 1, np.float32(np.inf), 0), "no labels")
    refused(np.zeros((9, *drawn.shape[1:]), np.uint8).repeat(9, 0), "another grid", GeometryError)
    refused(np.arange(drawn.size, dtype=np.int32).reshape(drawn.shape), "look like an image")
    (tmp_path / "x.nii").write_bytes(b"no such thing")
    with pytest.raises(SeriesError, match="not a NIfTI file of one part"):
        read_masks(tmp_path / "x.nii", volume)
    (tmp_path / "x.png").write_bytes(b"no such thing")
    with pytest.raises(SeriesError, match="not a mask file"):
        read_masks(tmp_path / "x.png", volume)
    with pytest.raises(SeriesError, match="cannot be read"):
        read_masks(tmp_path / "nothing", volume)
    codeless = nib.Nifti1Image(drawn, None)
    nib.save(codeless, tmp_path / "c.nii")
    with pytest.raises(GeometryError, match="does not say where"):
        read_masks(tmp_path / "c.nii", volume)


def save_seg(path: Path, folder: Path, labels: np.ndarray, **change: Any) -> Path:
    """Labels 1 and 2 as segments `lesion` and `muscle`, written by highdicom."""
    headers = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    headers.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    for one in headers:
        one.PatientBirthDate, one.PatientSex = "19500101", "O"
        for key in ("ReferringPhysicianName", "StudyID"):
            if key not in one:
                setattr(one, key, "")
    words = change.get("words", ("lesion", "muscle"))
    described = [
        hd.seg.SegmentDescription(
            i, word, codes.SCT.Tissue, codes.SCT.Tissue, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for i, word in enumerate(words, start=1)
    ]
    values = np.stack([labels == 1, labels == 2], axis=-1) if labels.ndim == 3 else labels
    kind = change.get("kind", "BINARY")
    segmentation = hd.seg.Segmentation(
        headers, values.astype(np.float32 if kind == "FRACTIONAL" else np.uint8), kind, described,
        "1.2.3.77", 9, "1.2.3.77.1", 1, "Maker", "Model", "1", "S1",
    )  # fmt: skip
    if "frame" in change:
        segmentation.FrameOfReferenceUID = change["frame"]
    segmentation.save_as(path)
    return path


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_segmentation(
    tmp_path: Path, folder: Path, volume: CTVolume, drawn: np.ndarray, kind: str
) -> None:
    regions = read_masks(save_seg(tmp_path / "s.dcm", folder, drawn, kind=kind), volume)
    assert [(one.label, one.slice_index) for one in regions] == [
        ("lesion", 1), ("lesion", 2), ("muscle", 3),
    ]  # fmt: skip
    assert np.array_equal(laid(regions, drawn.shape, "lesion"), drawn == 1)
    assert np.array_equal(laid(regions, drawn.shape, "muscle"), drawn == 2)


def test_segments_that_overlap_or_share_a_name_stay_apart(
    tmp_path: Path, folder: Path, volume: CTVolume, drawn: np.ndarray
) -> None:
    both = np.stack([drawn > 0, drawn == 2], axis=-1)
    path = save_seg(tmp_path / "s.dcm", folder, both, words=("lesion", "lesion"))
    regions = read_masks(path, volume)
    assert np.array_equal(laid(regions, drawn.shape, "lesion"), drawn > 0)
    assert np.array_equal(laid(regions, drawn.shape, "lesion 2"), drawn == 2)


def test_segmentations_that_do_not_fit_are_refused(
    tmp_path: Path, folder: Path, volume: CTVolume, drawn: np.ndarray
) -> None:
    other = save_seg(tmp_path / "f.dcm", folder, drawn, frame="1.2.9.9")
    with pytest.raises(GeometryError, match="another frame of reference"):
        read_masks(other, replace(volume, headers=()))
    remarks: list[str] = []
    regions = read_masks(other, volume, note=remarks.append)
    assert np.array_equal(laid(regions, drawn.shape, "lesion"), drawn == 1)
    assert "each frame names an image of this series" in remarks[0]
    halves = np.stack([drawn == 1, drawn == 2], axis=-1) * np.float32(0.5)
    fractions = save_seg(tmp_path / "p.dcm", folder, halves, kind="FRACTIONAL")
    with pytest.raises(SeriesError, match=r"FRACTIONAL that holds fractions.*threshold"):
        read_masks(fractions, volume)
    with pytest.raises(SeriesError, match="neither a segmentation nor"):
        read_masks(sorted(folder.iterdir())[0], volume)
    broken = pydicom.dcmread(save_seg(tmp_path / "b.dcm", folder, drawn))
    del broken.PerFrameFunctionalGroupsSequence
    broken.save_as(tmp_path / "b.dcm")
    with pytest.raises(CvsctError, match=r"b\.dcm"):
        read_masks(tmp_path / "b.dcm", volume)


def save_contours(
    path: Path, volume: CTVolume, contours: list[np.ndarray], change: Callable[[Dataset], None]
) -> Path:
    """One structure; each contour is given as slice, row and column of its corners."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.88"
    ds.Modality = "RTSTRUCT"
    roi, drawn = Dataset(), Dataset()
    roi.ROINumber, roi.ROIName = 4, "GTV"
    roi.ReferencedFrameOfReferenceUID = volume.geometry.frame_of_reference
    drawn.ReferencedROINumber = 4
    drawn.ContourSequence = []
    affine = volume_affine(volume)
    for corners in contours:
        contour = Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        mm = corners @ affine[:3, :3].T + affine[:3, 3]
        contour.NumberOfContourPoints = len(mm)
        contour.ContourData = [f"{value:.6g}" for value in mm.ravel()]
        drawn.ContourSequence.append(contour)
    ds.StructureSetROISequence, ds.ROIContourSequence = [roi], [drawn]
    change(ds)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def ring(plane: float, row: float, column: float, radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    return np.stack(
        [np.full(200, plane), row + radius * np.sin(angle), column + radius * np.cos(angle)], axis=1
    )


def unchanged(_: Dataset) -> None:
    pass


def test_contours_hold_the_voxels_whose_centres_they_enclose(
    tmp_path: Path, volume: CTVolume
) -> None:
    path = save_contours(tmp_path / "r.dcm", volume, [ring(2, 18, 16.5, 9.3)], unchanged)
    (region,) = read_masks(path, volume)
    y, x = np.mgrid[: volume.hu.shape[1], : volume.hu.shape[2]]
    truth = np.hypot(y - 18, x - 16.5) < 9.3
    found = laid((region,), volume.hu.shape, "GTV")
    assert region.slice_index == 2
    assert (found[2] ^ truth).sum() <= 2  # a 200-gon is no circle
    assert found.sum() == pytest.approx(np.pi * 9.3**2, rel=0.02)


def test_a_contour_within_a_contour_is_a_hole(tmp_path: Path, volume: CTVolume) -> None:
    rings = [ring(1, 18, 16, 9.3), ring(1, 18, 16, 4.2), ring(3, 18, 16, 4.2)]
    regions = read_masks(save_contours(tmp_path / "r.dcm", volume, rings, unchanged), volume)
    found = laid(regions, volume.hu.shape, "GTV")
    assert not found[1, 18, 16]
    assert found[3, 18, 16]
    assert found[1].sum() == pytest.approx(np.pi * (9.3**2 - 4.2**2), rel=0.03)


def test_contours_that_do_not_fit_are_refused(tmp_path: Path, volume: CTVolume) -> None:
    def refused(
        corners: np.ndarray, reason: str, change: Callable[[Dataset], None] = unchanged
    ) -> None:
        path = save_contours(tmp_path / "r.dcm", volume, [corners], change)
        with pytest.raises(CvsctError, match=reason):
            read_masks(path, volume)

    def other_frame(ds: Dataset) -> None:
        ds.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.9.9"

    def unlisted(ds: Dataset) -> None:
        ds.StructureSetROISequence = []

    def short(ds: Dataset) -> None:
        ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3"]

    def points(ds: Dataset) -> None:
        ds.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "POINT"

    inside = ring(2, 18, 16, 5)
    refused(ring(2.4, 18, 16, 5), "lies in no slice")
    refused(inside + np.linspace(0, 1, 200)[:, None] * [1, 0, 0], "lies in no slice")
    refused(ring(7, 18, 16, 5), "outside the image")
    refused(ring(2, -20, 16, 5), "outside the image")
    refused(inside, "another frame of reference", other_frame)
    refused(inside, "does not list", unlisted)
    refused(inside, "damaged", short)
    refused(inside, "empty", points)
    refused(ring(2, 18.5, 16.5, 0.1), "empty")


def test_a_library_that_is_not_there_is_named(
    tmp_path: Path,
    folder: Path,
    volume: CTVolume,
    drawn: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = save_seg(tmp_path / "s.dcm", folder, drawn)

    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingExtraError, match=r"highdicom.*cvsct\[evaluate\]"):
        read_masks(path, volume)


def test_masks_become_features(tmp_path: Path, volume: CTVolume, drawn: np.ndarray) -> None:
    regions = read_masks(save_nifti(tmp_path / "m.nii", drawn, volume), volume)
    table = extract([patch_of(volume, one) for one in regions])
    means = table.values[:, table.names.index("firstorder_Mean")]
    truth = [volume.hu[1][drawn[1] == 1], volume.hu[2][drawn[2] == 1], volume.hu[3][drawn[3] == 2]]
    assert means == pytest.approx([float(each.mean()) for each in truth], rel=1e-5)


def test_nifti_axes_by_hand() -> None:
    """NIfTI counts along right, anterior and superior; DICOM along left, posterior, superior."""
    hu = np.zeros((4, 6, 5), np.float32)
    volume = make_volume(hu, spacing_mm=5.0, pixel_mm=0.5)
    moved = volume.geometry.positions_mm + np.array([-10.0, -20.0, 30.0])
    volume = replace(volume, geometry=replace(volume.geometry, positions_mm=moved))
    # the voxel of slice 1, row 2, column 3 lies at left -8.5, posterior -19, superior 35 mm
    affine = np.diag([-0.5, -0.5, 5.0, 1.0])
    affine[:3, 3] = 10.0, 20.0, 30.0
    assert affine @ [3, 2, 1, 1] == pytest.approx([8.5, 19.0, 35.0, 1.0])
    values = np.zeros((5, 6, 4), np.int16)
    values[3, 2, 1] = 1
    masks = {"1": values == 1}
    (mask,) = on_grid("m", masks, FLIP @ affine, volume).values()
    assert np.argwhere(mask).tolist() == [[1, 2, 3]]
