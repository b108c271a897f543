"""Masks carried to a derived series: the right voxels and references, as independent readers see
them, and refusals of what does not belong to the source."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from cvsct.core.errors import CvsctError, GeometryError, SeriesError
from cvsct.core.slice_average import SliceAverage, average_slices
from cvsct.core.volume import CTVolume
from cvsct.io.carried_masks import carry_mask
from cvsct.io.dicom.outlines import outlines
from cvsct.io.dicom.simulated_masks import write_structure_set
from cvsct.io.dicom.write import write_derived
from cvsct.io.masks import read_label_masks
from cvsct.io.nifti.write import write_label_map
from tests.conftest import make_volume
from tests.faults.validators import errors, missing
from tests.io.test_enhanced import ORDER, enhanced
from tests.io.test_masks import save_seg
from tests.support.dicom_files import (
    COLUMNS,
    DERIVATION,
    ROWS,
    only,
    today,
    write_series,
    write_slice,
)
from tests.support.structure_sets import Contour, ring, save_structures

N_SLICES, THICK_MM = 20, 5.0
CT, DERIVED_SERIES = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.555"
Z, Y, X = np.mgrid[:N_SLICES, :ROWS, :COLUMNS]
LESION = ((Z - 9.3) / 6.2) ** 2 + ((Y - 15.2) / 9.1) ** 2 + ((X - 14.7) / 10.4) ** 2 <= 1
MUSCLE = (np.hypot(Y - 29, X - 20 - Z / 4) <= 6.3) & (Z >= 3) & (Z < 16)
LABELS = np.where(LESION, 1, np.where(MUSCLE, 2, 0)).astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """A source of 1 mm slices, a harmonized series, and one of 5 mm slices."""

    folder: Path
    source: CTVolume
    harmonized: CTVolume
    thick: CTVolume
    average: SliceAverage

    def carried(self, mask: Path, *, thick: bool = False, out: str = "out", **more: Any) -> Path:
        """The mask carried to one of the two series."""
        return carry_mask(
            mask,
            self.source,
            self.thick if thick else self.harmonized,
            mask.parent / out,
            average=self.average if thick else None,
            **more,
        )


def _thin(ds: Dataset, i: int) -> None:
    ds.ImagePositionPatient = [-100, -120, float(i)]
    ds.SliceThickness, ds.StudyDescription = 1.0, "Étude"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    out = tmp_path_factory.mktemp("carried")
    write_series(out / "source", N_SLICES, change=_thin)
    source = only(out / "source")
    write_derived(source, source.hu + np.float32(10), out / "harmonized", DERIVATION)
    average = average_slices(source.geometry.z_mm, 1.0, THICK_MM)

    def place(ds: Dataset, i: int) -> None:
        ds.ImagePositionPatient = [-100, -120, float(average.z_mm[i])]
        ds.SliceThickness = THICK_MM
        del ds.InstanceCreationDate, ds.InstanceCreationTime

    write_series(out / "thick", len(average), series=DERIVED_SERIES, change=place)
    return Case(
        out, source, only(out / "harmonized"), only(out / "thick"), average
    )  # fmt: skip


def inward(plane: np.ndarray) -> np.ndarray:
    """Distance of each voxel from the nearest voxel of the other kind, below 0 outside."""
    places = np.argwhere(np.ones_like(plane)).reshape(*plane.shape, 2).astype(float)
    distance = np.full(plane.shape, -2.0)
    for kind, sign in ((True, 1.0), (False, -1.0)):
        others = places[plane != kind]
        if len(others) and plane.any():
            apart = np.linalg.norm(places[:, :, None] - others, axis=-1).min(axis=-1)
            distance = np.where(plane == kind, sign * apart, distance)
    return np.clip(distance, -2, 2)


def between(mask: np.ndarray, average: SliceAverage) -> np.ndarray:
    """The rule, written again: in by the mean of distances to the borders, at most two pixels."""
    planes = []
    for first, weights in zip(average.first, average.weights, strict=True):
        part = mask[first : first + len(weights)]
        votes = sum(w * inward(plane) for w, plane in zip(weights, part, strict=True))
        assert not (np.abs(np.tensordot(weights, part.astype(float), 1) - 0.5) < 1e-3).any()
        planes.append(part.all(axis=0) | (part.any(axis=0) & (votes > 1e-9)))
    return np.stack(planes)


def same(mask: Path, on: CTVolume, carried: Path, onto: CTVolume) -> None:
    before, after = read_label_masks(mask, on).masks, read_label_masks(carried, onto).masks
    assert list(before) == list(after)
    for title, voxels in before.items():
        np.testing.assert_array_equal(after[title], voxels)


def references(ds: Dataset) -> Iterator[str]:
    """Every SOP Instance UID that an object refers to, at any depth."""
    for element in ds.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)


def uids(volume: CTVolume) -> set[str]:
    return {str(header.SOPInstanceUID) for header in volume.headers}


def check_identity(mask: Path, carried: Path, volume: CTVolume) -> Dataset:
    """What holds of every new object, and that it names the derived images and no others."""
    before, after = pydicom.dcmread(mask), pydicom.dcmread(carried)
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate",
        "StudyDescription", "FrameOfReferenceUID", "SpecificCharacterSet",
    ):  # fmt: skip
        if keyword in before:
            assert after.get_item(keyword).value == before.get_item(keyword).value  # as bytes
    assert after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID
    assert after.SOPInstanceUID not in {before.SOPInstanceUID, *uids(volume)}
    assert after.SeriesInstanceUID not in {before.get("SeriesInstanceUID"), volume.series_uid}
    assert after.SeriesDescription.startswith("Research use only")
    assert after.ContributingEquipmentSequence[-1].Manufacturer == "cvsct"
    others = {str(before.SOPInstanceUID), str(before.get("StudyInstanceUID", ""))}
    named = set(references(after)) - others - {str(volume.headers[0].StudyInstanceUID)}
    assert named
    assert named <= uids(volume)
    for keyword in ("ReviewerName", "ReviewDate", "ReviewTime", "InstanceCreationDate"):
        assert keyword not in after
    assert today() not in carried.read_bytes().decode("latin-1") or today() in (
        str(before.get("ContentDate", ""))
    )
    return after


def changed(path: Path, change: Callable[[Dataset], None]) -> Path:
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


# same grid


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_a_segmentation_of_a_harmonized_series(tmp_path: Path, case: Case, kind: str) -> None:
    mask = save_seg(tmp_path / "s.dcm", case.folder / "source", LABELS, kind=kind)
    carried = case.carried(mask, name="patient 1")
    assert carried == tmp_path / "out" / "patient 1.dcm"
    assert stat.S_IMODE(carried.stat().st_mode) == 0o600
    same(mask, case.source, carried, case.harmonized)
    after = check_identity(mask, carried, case.harmonized)
    before = pydicom.dcmread(mask)
    assert after.PixelData == before.PixelData
    assert after.SegmentSequence == before.SegmentSequence
    assert after.ContentLabel.startswith("RESEARCH")
    assert len(after.ContentLabel) <= 16
    first = after.ReferencedSeriesSequence[0]
    assert first.SeriesInstanceUID == case.harmonized.series_uid
    assert {i.ReferencedSOPInstanceUID for i in first.ReferencedInstanceSequence} == uids(
        case.harmonized
    )
    (predecessor,) = after.ReferencedInstanceSequence
    assert predecessor.ReferencedSOPInstanceUID == before.SOPInstanceUID
    read = [hd.seg.segread(path) for path in (mask, carried)]
    by_source = [
        [str(header.SOPInstanceUID) for header in volume.headers]
        for volume in (case.source, case.harmonized)
    ]
    pixels = [
        seg.get_pixels_by_source_instance(names, assert_missing_frames_are_empty=True)
        for seg, names in zip(read, by_source, strict=True)
    ]
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert pixels[1].any()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, case: Case) -> None:
    mask = save_seg(tmp_path / "s.dcm", case.folder / "source", LABELS)
    for thick in (False, True):
        one = case.carried(mask, thick=thick, out="a")
        two = case.carried(mask, thick=thick, out="b")
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes()


def test_a_date_is_that_of_the_derived_images(tmp_path: Path, case: Case) -> None:
    dated = replace(DERIVATION, timestamp="20261128093000")
    write_derived(case.source, case.source.hu, tmp_path / "dated", dated)
    derived = only(tmp_path / "dated")
    seg = save_seg(tmp_path / "s.dcm", case.folder / "source", LABELS)
    drawn = save_structures(tmp_path / "r.dcm", case.source, {"x": _circles(case.source)})
    for mask in (seg, drawn):
        after = pydicom.dcmread(carry_mask(mask, case.source, derived, tmp_path / "out"))
        date = after.ContentDate if mask == seg else after.StructureSetDate
        assert (date, after.InstanceCreationTime) == ("20261128", "093000")


def test_segments_that_overlap_or_are_empty(tmp_path: Path, case: Case) -> None:
    both = np.stack([LABELS > 0, LABELS == 2, LABELS == 9], axis=-1)
    mask = save_seg(
        tmp_path / "s.dcm", case.folder / "source", both, words=("organ", "muscle", "none")
    )
    notes: list[str] = []
    same(mask, case.source, case.carried(mask, note=notes.append), case.harmonized)
    assert notes == ["s.dcm: empty segments: 'none'"] or "'none'" in notes[0]
    carried = case.carried(mask, thick=True, out="thick", note=notes.append)
    read = read_label_masks(carried, case.thick).masks
    np.testing.assert_array_equal(read["organ"], between(LABELS > 0, case.average))
    np.testing.assert_array_equal(read["muscle"], between(LABELS == 2, case.average))
    assert not read["none"].any()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("thick", [False, True])
def test_masks_in_other_syntaxes(tmp_path: Path, case: Case, syntax: str, thick: bool) -> None:
    plain = save_seg(tmp_path / "s.dcm", case.folder / "source", LABELS, words=("lesion", "x"))
    drawn = save_structures(tmp_path / "r.dcm", case.source, {"Müller": _circles(case.source)},
                            change=_latin)  # fmt: skip
    for path in (plain, drawn):
        other = tmp_path / f"other_{path.name}"
        ds = pydicom.dcmread(path)
        if syntax == ExplicitVRBigEndian and "PixelData" in ds:
            ds["PixelData"].VR = "OW"
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(other, ds, implicit_vr=syntax == ImplicitVRLittleEndian,
                         little_endian=syntax == ImplicitVRLittleEndian)  # fmt: skip
        one, two = (case.carried(p, thick=thick, out=p.stem) for p in (path, other))
        onto = case.thick if thick else case.harmonized
        same(one, onto, two, onto)
        same(path, case.source, other, case.source)


def _latin(ds: Dataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 100"


def _circles(volume: CTVolume, radius: float = 9.2) -> list[Contour]:
    """Circles that name their images on slices 2 to 15."""
    return [
        Contour(ring(k, 18.2, 16.4, radius), image=str(volume.headers[k].SOPInstanceUID))
        for k in range(2, 16)
    ]


def _approved(ds: Dataset) -> None:
    _latin(ds)
    ds.ApprovalStatus, ds.ReviewerName = "APPROVED", "Reviewer^A"
    ds.ReviewDate = ds.InstanceCreationDate = ds.StructureSetDate = "20200101"
    ds.StructureSetLabel = "A long label of"
    ds.PatientName, ds.StudyInstanceUID = "Müller^Anna", "1.2.3"
    ds.RTROIObservationsSequence = []


def test_a_structure_set_of_a_harmonized_series(tmp_path: Path, case: Case) -> None:
    structures = {"Lésion": _circles(case.source), "empty": None, "also empty": []}
    mask = save_structures(tmp_path / "r.dcm", case.source, structures, change=_approved)
    carried = case.carried(mask)
    same(mask, case.source, carried, case.harmonized)
    after, before = check_identity(mask, carried, case.harmonized), pydicom.dcmread(mask)
    assert after.ApprovalStatus == "UNAPPROVED"
    assert after.StructureSetLabel == "RESEARCH A long"
    assert after.StructureSetDate == ""
    assert after.PredecessorStructureSetSequence[0].ReferencedSOPInstanceUID == "1.2.3.88"
    assert [roi.ROIName for roi in after.StructureSetROISequence] == list(structures)
    ours, theirs = (ds.ROIContourSequence[0].ContourSequence for ds in (after, before))
    for k, (one, two) in enumerate(zip(ours, theirs, strict=True), start=2):
        assert one["ContourData"].value == two["ContourData"].value
        (image,) = one.ContourImageSequence
        assert image.ReferencedSOPInstanceUID == case.harmonized.headers[k].SOPInstanceUID
    (frame,) = after.ReferencedFrameOfReferenceSequence
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert series.SeriesInstanceUID == case.harmonized.series_uid
    assert frame.FrameOfReferenceUID == case.source.geometry.frame_of_reference


def test_frames_of_a_multi_frame_source_become_images(tmp_path: Path) -> None:
    """Of a file of frames a series of single images is derived; the frame number goes."""
    write_slice(tmp_path / "source" / "a.dcm", enhanced())
    source = only(tmp_path / "source")
    write_derived(source, source.hu, tmp_path / "derived", DERIVATION)
    derived = only(tmp_path / "derived")
    contours = [Contour(ring(k, 18, 16, 7), image="1.2.3.4.1") for k in range(len(source))]

    def number(ds: Dataset) -> None:
        for place, contour in enumerate(ds.ROIContourSequence[0].ContourSequence):
            contour.ContourImageSequence[0].ReferencedFrameNumber = ORDER.index(place) + 1

    mask = save_structures(tmp_path / "r.dcm", source, {"x": contours}, change=number)
    carried = carry_mask(mask, source, derived, tmp_path / "out")
    same(mask, source, carried, derived)
    drawn = pydicom.dcmread(carried).ROIContourSequence[0].ContourSequence
    for contour, header in zip(drawn, derived.headers, strict=True):
        (image,) = contour.ContourImageSequence
        assert image.ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert image.ReferencedSOPClassUID == CT
        assert "ReferencedFrameNumber" not in image


def test_what_was_drawn_on_another_series_is_left_out(tmp_path: Path, case: Case) -> None:
    frame = case.source.geometry.frame_of_reference
    elsewhere = [Contour(c.corners, image="1.9.9.1") for c in _circles(case.source)]

    def two_series(ds: Dataset) -> None:
        ds.ReferencedFrameOfReferenceSequence = []
        for uid, series, image in ((frame, "1.2.3.4", "1.2.3.4.5"), ("1.9", "1.9.9", "1.9.9.1")):
            item, study, of_series, of_image = (Dataset() for _ in range(4))
            of_image.ReferencedSOPClassUID, of_image.ReferencedSOPInstanceUID = CT, image
            of_series.SeriesInstanceUID, of_series.ContourImageSequence = series, [of_image]
            study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
            study.ReferencedSOPInstanceUID = "1.2.3"
            study.RTReferencedSeriesSequence = [of_series]
            item.FrameOfReferenceUID, item.RTReferencedStudySequence = uid, [study]
            ds.ReferencedFrameOfReferenceSequence.append(item)
        ds.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.9"

    structures = {"here": _circles(case.source), "there": elsewhere}
    mask = save_structures(tmp_path / "r.dcm", case.source, structures, change=two_series)
    notes: list[str] = []
    carried = case.carried(mask, note=notes.append)
    after = check_identity(mask, carried, case.harmonized)
    assert list(read_label_masks(carried, case.harmonized).masks) == ["here"]
    assert len(after.ReferencedFrameOfReferenceSequence) == len(after.ROIContourSequence) == 1
    assert any("'there'" in note for note in notes)
    assert any("1 other series" in note for note in notes)

    def other_alone(ds: Dataset) -> None:
        two_series(ds)
        ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[
            0
        ].RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.9.9"
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CT, "1.9.9.2"
        ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[
            0
        ].RTReferencedSeriesSequence[0].ContourImageSequence = [image]

    unnamed = [Contour(contour.corners) for contour in elsewhere]
    structures = {"one": unnamed, "two": unnamed}
    mask = save_structures(tmp_path / "o.dcm", case.source, structures, change=other_alone)
    with pytest.raises(SeriesError, match="images of another series"):
        case.carried(mask)
    mask = save_structures(tmp_path / "q.dcm", case.source, {"there": elsewhere})
    with pytest.raises(SeriesError, match="images of another series"):
        case.carried(mask)


def test_frames_that_were_drawn_on_another_series_are_left_out(tmp_path: Path, case: Case) -> None:
    mask = save_seg(tmp_path / "s.dcm", case.folder / "source", LABELS)
    here, there = [LABELS == 1], [LABELS == 2]
    notes: list[str] = []

    def rename(ds: Dataset) -> None:
        for frame in ds.PerFrameFunctionalGroupsSequence:
            if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
                image = frame.DerivationImageSequence[0].SourceImageSequence[0]
                image.ReferencedSOPInstanceUID = "1.9.9.1"

    carried = case.carried(changed(mask, rename), note=notes.append)
    read = read_label_masks(carried, case.harmonized).masks
    np.testing.assert_array_equal(read["lesion"], here[0])
    assert there[0].any()
    assert not read["muscle"].any()
    assert any("frames that were drawn on other images" in note for note in notes)

    def rename_all(ds: Dataset) -> None:
        for frame in ds.PerFrameFunctionalGroupsSequence:
            image = frame.DerivationImageSequence[0].SourceImageSequence[0]
            image.ReferencedSOPInstanceUID = "1.9.9.1"

    with pytest.raises(SeriesError, match="images of another series"):
        case.carried(changed(mask, rename_all))


def test_compressed_pixels_stay_as_they_are(tmp_path: Path, case: Case) -> None:
    mask = save_seg(tmp_path / "s.dcm", case.folder / "source", LABELS, kind="FRACTIONAL")
    ds = pydicom.dcmread(mask)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(mask)
    carried = case.carried(mask)
    after = pydicom.dcmread(carried)
    assert after.file_meta.TransferSyntaxUID == RLELossless
    assert after.PixelData == ds.PixelData
    same(mask, case.source, carried, case.harmonized)
    thick = case.carried(mask, thick=True, out="thick")
    read = read_label_masks(thick, case.thick).masks
    np.testing.assert_array_equal(read["lesion"], between(LABELS == 1, case.average))


def test_a_mask_that_names_no_image_gets_names(tmp_path: Path, case: Case) -> None:
    mask = save_seg(tmp_path / "s.dcm", case.folder / "source", LABELS)

    def forget(ds: Dataset) -> None:
        del ds.ReferencedSeriesSequence
        for frame in ds.PerFrameFunctionalGroupsSequence:
            del frame.DerivationImageSequence

    carried = case.carried(changed(mask, forget))
    after = check_identity(mask, carried, case.harmonized)
    same(mask, case.source, carried, case.harmonized)
    for frame in after.PerFrameFunctionalGroupsSequence:
        z_mm = frame.PlanePositionSequence[0].ImagePositionPatient[2]
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        named = case.harmonized.headers[round(z_mm)]
        assert image.ReferencedSOPInstanceUID == named.SOPInstanceUID


def test_a_label_map_of_a_harmonized_series_is_copied(tmp_path: Path, case: Case) -> None:
    for suffix in (".nii", ".nii.gz"):
        mask = tmp_path / f"m{suffix}"
        write_label_map(case.source.geometry, LABELS, mask)
        carried = case.carried(mask, name="p1")
        assert carried.name == f"p1{suffix}"
        assert carried.read_bytes() == mask.read_bytes()


# thicker slices


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_a_segmentation_on_thicker_slices(tmp_path: Path, case: Case, kind: str) -> None:
    mask = save_seg(tmp_path / "s.dcm", case.folder / "source", LABELS, kind=kind)
    carried = case.carried(mask, thick=True)
    after = check_identity(mask, carried, case.thick)
    read = read_label_masks(carried, case.thick).masks
    np.testing.assert_array_equal(read["lesion"], between(LABELS == 1, case.average))
    np.testing.assert_array_equal(read["muscle"], between(LABELS == 2, case.average))
    assert read["lesion"].sum() * THICK_MM == pytest.approx(LESION.sum(), rel=0.05)
    measures = after.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == float(measures.SpacingBetweenSlices) == THICK_MM
    segmentation = hd.seg.segread(carried)
    names = [str(header.SOPInstanceUID) for header in case.thick.headers]
    pixels = segmentation.get_pixels_by_source_instance(
        names, segment_numbers=[1], assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels[..., 0] > 0, read["lesion"])


def test_a_gap_between_thick_slices_is_kept(tmp_path: Path, case: Case) -> None:
    labels = np.zeros_like(LABELS)
    labels[0:5, 5:9, 5:9] = labels[15:20, 5:9, 5:9] = 1
    labels[5:10, 20:22, 20:24] = 2
    mask = save_seg(tmp_path / "s.dcm", case.folder / "source", labels)
    read = read_label_masks(case.carried(mask, thick=True), case.thick).masks
    assert np.flatnonzero(read["lesion"].any(axis=(1, 2))).tolist() == [0, 3]
    np.testing.assert_array_equal(read["muscle"], between(labels == 2, case.average))


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_a_structure_set_on_thicker_slices(tmp_path: Path, case: Case, kind: str) -> None:
    """An ellipsoid with a hole from top to bottom, and a structure that is too thin to stay."""
    shell = [
        Contour(ring(k, 15.2, 14.7, radius), kind)
        for k in range(4, 15)
        for radius in (9 * np.sqrt(1 - ((k - 9.3) / 6.2) ** 2), 2.3)
    ]
    structures = {"shell": shell, "thin": [Contour(ring(9, 30, 25, 4))], "none": None}
    mask = save_structures(tmp_path / "r.dcm", case.source, structures)
    notes: list[str] = []
    carried = case.carried(mask, thick=True, note=notes.append)
    after = check_identity(mask, carried, case.thick)
    assert [roi.ROIName for roi in after.StructureSetROISequence] == list(structures)
    assert any("'thin', 'none'" in note for note in notes)
    before = read_label_masks(mask, case.source).masks["shell"]
    read = read_label_masks(carried, case.thick).masks
    np.testing.assert_array_equal(read["shell"], between(before, case.average))
    assert not read["shell"][:, 15, 15].any()
    drawn = after.ROIContourSequence[0].ContourSequence
    assert {contour.ContourGeometricType for contour in drawn} == {kind}
    on = [str(contour.ContourImageSequence[0].ReferencedSOPInstanceUID) for contour in drawn]
    heights = {str(h.SOPInstanceUID): float(h.ImagePositionPatient[2]) for h in case.thick.headers}
    assert [float(contour.ContourData[2]) for contour in drawn] == [heights[uid] for uid in on]
    assert (len(set(on)) == len(on)) == (kind == "CLOSED_PLANAR")  # the hole joined, or its own


def test_labels_on_thicker_slices(tmp_path: Path, case: Case) -> None:
    values = np.where(LABELS == 2, np.int16(300), LABELS)
    values[0:2, 1:3, 1:3], values[2:4, 1:3, 1:3] = 1, 300
    turned = np.flip(values.transpose(2, 1, 0), 0)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ case.source.affine[:, [2, 1, 0, 3]]
    affine[:, 3] += affine[:, 0] * (COLUMNS - 1)
    affine[:, 0] *= -1
    image = nib.Nifti1Image(turned, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "m.nii.gz")
    carried = case.carried(tmp_path / "m.nii.gz", thick=True, name="p1")
    assert carried.name == "p1.nii.gz"
    read = read_label_masks(carried, case.thick).masks
    weights = [(case.average.sources(i), case.average.weights[i]) for i in range(4)]
    one, two = (
        np.stack([np.tensordot(w, (values == n)[s.start : s.stop], 1) for s, w in weights])
        for n in (1, 300)
    )
    labeled = between(values != 0, case.average)
    np.testing.assert_array_equal(read["1"], labeled & (one >= two - 1e-9) & (one > 0))
    np.testing.assert_array_equal(read["300"], labeled & (two > one + 1e-9))
    # two labels together are enough, though neither has half of the voxel
    assert (labeled & (np.maximum(one, two) < 0.5 - 1e-9)).any()


def test_of_voxels_that_are_half_in_the_deeper_half_is(tmp_path: Path) -> None:
    """Of slices of 1 mm averaged in pairs, a square of 4 x 4 in one alone leaves its middle."""
    hu = np.zeros((6, ROWS, COLUMNS))
    source = make_volume(hu, spacing_mm=1.0)
    average = average_slices(source.geometry.z_mm, 1.0, 2.0)
    thick = make_volume(hu[: len(average)], spacing_mm=2.0)
    thick.geometry.positions_mm[:, 2] = average.z_mm
    labels = np.zeros(hu.shape, np.uint8)
    labels[1, 5:9, 5:9] = 1
    write_label_map(source.geometry, labels, tmp_path / "m.nii")
    carried = carry_mask(tmp_path / "m.nii", source, thick, tmp_path / "out", average=average)
    assert read_label_masks(carried, thick).masks["1"].sum(axis=(1, 2)).tolist() == [4, 0, 0]


def test_outlines_enclose_exactly_what_reaches_the_level() -> None:
    """Whatever the rule by which a reader combines contours, where holes are joined."""
    from scipy.ndimage import gaussian_filter
    from skimage.draw import polygon

    rng = np.random.default_rng(3)
    for trial in range(12):
        share = gaussian_filter(rng.random((30, 26)), 1 + trial % 2)
        share = (share - share.min()) / np.ptp(share)
        share = np.round(share * 4) / 4 if trial % 3 else share
        for keyholes in (False, True):
            exclusive, united = np.zeros((2, *share.shape), bool)
            for corners in outlines(share, 0.5, keyholes=keyholes):
                inside = polygon(*np.round(corners, 3).T, share.shape)
                exclusive[inside] ^= True
                united[inside] = True
            np.testing.assert_array_equal(exclusive, share >= 0.5)
            if keyholes:
                np.testing.assert_array_equal(united, share >= 0.5)


def test_long_contours_are_written_so_that_their_length_fits(tmp_path: Path, case: Case) -> None:
    circle = Contour(ring(9, 15, 15, 9, corners=4000), image="1.2.3.4.10")
    mask = save_structures(tmp_path / "r.dcm", case.source, {"x": _circles(case.source)})
    ds = pydicom.dcmread(mask)
    ds.ROIContourSequence[0].ContourSequence[7].ContourData = [
        f"{v:.6f}" for v in (np.asarray(circle.corners) @ case.source.affine[:3, :3].T
                             + case.source.affine[:3, 3]).ravel()
    ]  # fmt: skip
    ds.ROIContourSequence[0].ContourSequence[7].NumberOfContourPoints = 4000
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(mask, ds, implicit_vr=True, little_endian=True)
    carried = case.carried(mask)
    after = pydicom.dcmread(carried)
    assert after.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert len(after.ROIContourSequence[0].ContourSequence[7].ContourData) == 12000
    same(mask, case.source, carried, case.harmonized)


# refusals


def test_masks_of_which_nothing_remains_are_refused(tmp_path: Path, case: Case) -> None:
    thin = np.zeros_like(LABELS)
    thin[7, 5:9, 5:9] = 1
    seg = save_seg(tmp_path / "s.dcm", case.folder / "source", thin)
    nifti = tmp_path / "m.nii"
    write_label_map(case.source.geometry, thin, nifti)
    structures = save_structures(
        tmp_path / "r.dcm", case.source, {"x": [Contour(ring(9, 15, 15, 5))]}
    )
    for path in (seg, nifti, structures):
        case.carried(path)
        with pytest.raises(GeometryError, match=r"half of a voxel of slices of 5 mm"):
            case.carried(path, thick=True)
    write_label_map(case.source.geometry, 0 * thin, nifti)
    empty = save_structures(tmp_path / "e.dcm", case.source, {"x": None})
    for path in (nifti, empty):
        with pytest.raises(GeometryError, match="the mask is empty"):
            case.carried(path)


def test_what_does_not_fit_is_refused(tmp_path: Path, case: Case) -> None:
    def refused(path: Path, reason: str, **more: Any) -> None:
        arguments = {"source": case.source, "derived": case.harmonized, **more}
        with pytest.raises(CvsctError, match=reason):
            carry_mask(path, folder=tmp_path / "out", **arguments)
        assert not (tmp_path / "out").exists()

    seg = save_seg(tmp_path / "s.dcm", case.folder / "source", LABELS)
    refused(seg, "5|4 slices, expected 20", derived=case.thick)
    refused(seg, "more were averaged", source=case.source.select(slice(12)), derived=case.thick,
            average=case.average)  # fmt: skip
    refused(seg, "are not DICOM", derived=make_like(case.harmonized))
    refused(case.folder / "source" / "001.dcm", "neither a segmentation nor")
    shifted = nib.Nifti1Image(LABELS, np.diag([-1.0, -1, 1, 1]) @ case.source.affine + 0.3)
    shifted.header.set_xyzt_units("mm")
    nib.save(shifted, tmp_path / "m.nii")
    refused(tmp_path / "m.nii", "another grid")
    (tmp_path / "t.txt").write_text("no mask")
    refused(tmp_path / "t.txt", "not a mask file")
    fractions = save_seg(tmp_path / "f.dcm", case.folder / "source",
                         np.stack([LESION * 0.4, MUSCLE * 0.7], -1), kind="FRACTIONAL")  # fmt: skip
    refused(fractions, "holds fractions")

    def repeat(ds: Dataset, i: int) -> None:
        _thin(ds, i)
        ds.SOPInstanceUID = "1.2.3.4.7" if i in (3, 5) else ds.SOPInstanceUID

    twice = only(write_series(tmp_path / "twice", N_SLICES, change=repeat))
    refused(seg, "share one SOP Instance UID", source=twice)


def make_like(volume: CTVolume) -> CTVolume:
    return CTVolume(volume.hu, volume.geometry, series_uid="1.2.3.4.5.6")


# independent readers


def _truth(case: Case, path: Path) -> Path:
    """A complete structure set: an ellipse with a hole of its own on each of some slices."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    folder = case.folder / "in_order"
    if not folder.exists():
        folder.mkdir()
        for number, file in enumerate(sorted((case.folder / "source").iterdir(), reverse=True)):
            shutil.copy(file, folder / f"{number:03d}.dcm")
    contours = {k: [-88.15, -109.2] + circle * [6.03, 4.57] for k in range(3, 17)}
    write_structure_set(folder, contours, "Lesion", path)
    return path


def _of_the_patient(ds: Dataset) -> None:
    ds.PatientBirthDate, ds.PatientSex = "19600101", "F"


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("thick", [False, True])
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL", "RTSTRUCT"])
def test_validators_find_nothing_new(tmp_path: Path, case: Case, kind: str, thick: bool) -> None:
    mask = tmp_path / "m.dcm"
    if kind == "RTSTRUCT":
        _truth(case, mask)
    else:
        changed(save_seg(mask, case.folder / "source", LABELS, kind=kind), _of_the_patient)
    carried = case.carried(mask, thick=thick)
    assert errors("dciodvfy", "-new", carried) <= errors("dciodvfy", "-new", mask)
    series = sorted((case.folder / ("thick" if thick else "harmonized")).glob("*.dcm"))
    both = errors("dcentvfy", *series, mask, carried)
    assert both <= errors("dcentvfy", *series, mask)


@pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is not installed")
def test_plastimatch_sees_the_same_voxels(tmp_path: Path, case: Case) -> None:
    def rasterized(structures: Path, images: Path) -> np.ndarray:
        out = tmp_path / f"{structures.parent.name}_{images.name}"
        subprocess.run(
            ["plastimatch", "convert", "--input", structures, "--referenced-ct", images,
             "--output-prefix", out, "--prefix-format", "nii.gz"],
            check=True, capture_output=True,
        )  # fmt: skip
        (file,) = out.glob("*.nii.gz")
        return np.asarray(nib.load(file).dataobj).transpose(2, 1, 0) > 0

    mask = _truth(case, tmp_path / "r.dcm")
    carried = case.carried(mask)
    before = rasterized(mask, case.folder / "source")
    after = rasterized(carried, case.folder / "harmonized")
    assert before.any()
    np.testing.assert_array_equal(before, after)
    ours = read_label_masks(carried, case.harmonized).masks["Lesion"]
    assert (after ^ ours).sum() <= 0.01 * ours.sum()
    # a tube on thick slices: the hole is joined with the outline, for any rule of combination
    tube = [Contour(ring(k, 18, 16, r)) for k in range(20) for r in (9.3, 4.2)]
    tube_set = save_structures(tmp_path / "t.dcm", case.source, {"tube": tube})
    thick = case.carried(tube_set, thick=True, out="thick")
    seen = rasterized(thick, case.folder / "thick")
    read = read_label_masks(thick, case.thick).masks["tube"]
    assert not read[:, 18, 16].any()
    assert (seen ^ read).sum() <= 0.02 * read.sum()
