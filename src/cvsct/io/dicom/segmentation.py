"""DICOM segmentations as masks on the grid of a volume, one segment at a time (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian

from cvsct.core.errors import GeometryError, SeriesError, import_extra
from cvsct.core.progress import Note
from cvsct.core.volume import CTVolume
from cvsct.io.affine import is_other_frame, refuse_other_frame
from cvsct.io.dicom.header import quiet, text
from cvsct.io.dicom.references import ImageName, images_named, items, slices_by_name
from cvsct.io.dicom.rewrite import copied, file_bytes
from cvsct.io.dicom.structure_names import title_of
from cvsct.io.dicom.structure_set import DrawnMasks
from cvsct.io.mask_grid import on_grid, refuse_larger

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP Classes of Segmentation Storage and Label Map Segmentation Storage."""

KINDS = ("BINARY", "LABELMAP", "FRACTIONAL")
"""Segmentation Types; a fractional one may hold nothing or all of each voxel."""


@dataclass(frozen=True)
class Segments:
    """A segmentation whose header was checked; masks are read one by one.

    Args:
        titles: of the segments by number, in the file's order; the background is none.
        named: whether each frame names an image of the volume.
    """

    name: str = field(repr=False)
    kind: str
    titles: Mapping[int, str]
    named: bool
    volume: CTVolume = field(repr=False)
    affine: Float[np.ndarray, "4 4"] = field(repr=False)
    reader: Any = field(repr=False)

    def mask(self, number: int) -> Bool[np.ndarray, "slices rows columns"]:
        """Mask of one segment on the volume's grid.

        Raises:
            SeriesError: if it holds fractions, or is damaged.
            GeometryError: if it lies on another grid, or reaches outside the image.
        """
        with _refusing(self.name):
            segment = self.reader.get_volume(segment_numbers=[number])
            values = segment.array.reshape(segment.spatial_shape)
            if self.kind == "FRACTIONAL" and not np.isin(values, (0, 1)).all():
                raise SeriesError(
                    f"{self.name}: a segmentation of type FRACTIONAL that holds fractions, "
                    "expected nothing or all of each voxel; threshold it first"
                )
        title = self.titles[number]
        return on_grid(self.name, {title: values > 0}, self.affine, self.volume)[title]


def segment_masks(name: str, dataset: Dataset, volume: CTVolume, note: Note) -> DrawnMasks:
    """Masks of a segmentation: one for each segment, for segments may overlap.

    Raises:
        SeriesError, GeometryError, MissingExtraError: as `open_segments` and `Segments.mask`.
    """
    segments = open_segments(name, dataset, volume, note)
    masks = {title: segments.mask(number) for number, title in segments.titles.items()}
    return DrawnMasks(masks, list(masks), segments.named)


def open_segments(name: str, dataset: Dataset, volume: CTVolume, note: Note) -> Segments:
    """Check the header of a segmentation against a volume; no pixels are read.

    Args:
        dataset: with pixels; it serves no other purpose afterwards.
        note: told where it was drawn in another frame of reference.

    Raises:
        SeriesError: if it is of another type, or damaged.
        GeometryError: if it was drawn in another frame of reference and does not name the volume's
            images, is much larger than the volume, or has no regular planes.
        MissingExtraError: if highdicom is not installed.
    """
    kind = text(dataset, "SegmentationType")
    if kind not in KINDS:
        raise SeriesError(
            f"{name}: a segmentation of another type than BINARY, LABELMAP and FRACTIONAL; "
            "save it again as one of these"
        )
    named = _names_images(dataset, volume)
    frame = text(dataset, "FrameOfReferenceUID")
    if not named:
        refuse_other_frame(name, frame, volume)
    elif is_other_frame(frame, volume):
        note(
            f"{name}: drawn in another frame of reference, taken because each frame names an "
            "image of this series"
        )
    highdicom = import_extra("highdicom", "reading this mask", "evaluate")
    titles: dict[int, str] = {}
    with _refusing(name):
        reader = highdicom.seg.Segmentation.from_dataset(little_endian(dataset), copy=False)
        geometry = reader.get_volume_geometry()
        if geometry is None:
            raise GeometryError(
                f"{name}: its frames are not regularly spaced planes; save it again as one "
                "segmentation of the series"
            )
        refuse_larger(name, geometry.spatial_shape, volume)
        for number in reader.segment_numbers:
            wanted = str(reader.get_segment_description(number).segment_label)
            titles[int(number)] = title_of(wanted, number, titles.values())
    return Segments(name, kind, titles, named, volume, geometry.affine, reader)


def little_endian(dataset: Dataset) -> Dataset:
    """A segmentation in a syntax that is not retired, pixels as bytes; itself if it is in one."""
    meta = getattr(dataset, "file_meta", Dataset())
    if text(meta, "TransferSyntaxUID") != ExplicitVRBigEndian:
        return dataset
    pixels = dataset.get_item("PixelData")
    copy = copied(dataset, leave_out=(), signed=False)
    content = bytes(pixels.value) if pixels is not None and pixels.value else b""
    if pixels is not None and pixels.VR == "OW":  # words of two bytes (PS3.5 section 8.1.1)
        content = np.frombuffer(content[: len(content) // 2 * 2], ">u2").astype("<u2").tobytes()
    copy.add_new("PixelData", "OB", content)
    return dcmread(BytesIO(file_bytes(copy, FileMetaDataset(meta))))


def derived_from(group: Dataset) -> list[ImageName]:
    """Images that a functional group says a frame was derived from."""
    return [
        image
        for derivation in items(group, "DerivationImageSequence")
        for image in images_named(derivation, "SourceImageSequence")
    ]


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn what highdicom raises about a damaged file into a refusal that quotes no value."""
    try:
        with quiet():
            yield
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise SeriesError(
            f"{name}: not a sound segmentation ({type(error).__name__} while reading it); "
            "save it again"
        ) from None


def _names_images(dataset: Dataset, volume: CTVolume) -> bool:
    """Whether each frame of a segmentation was derived from an image of the volume."""
    known = slices_by_name(volume)
    frames = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items(dataset, "SharedFunctionalGroupsSequence")
    return bool(frames and known) and all(
        any(image in known for group in (frame, *shared) for image in derived_from(group))
        for frame in frames
    )
