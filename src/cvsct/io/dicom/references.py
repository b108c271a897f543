"""References to images by SOP Instance UID: slices of a volume, and images that an object names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom import Dataset

from cvsct.core.volume import CTVolume
from cvsct.io.dicom.header import quiet, text, whole

ImageName = tuple[str, int]
"""SOP Instance UID, and the frame from 1 in a multi-frame file, else 0."""

_SOURCE_FOR_PROCESSING = "121322"
"""DICOM's code for the image that another was computed from."""


def slices_by_name(volume: CTVolume) -> dict[ImageName, int]:
    """Slice index for each name of an image of the volume; empty without DICOM headers.

    A slice has its own SOP Instance UID, that of the multi-frame file it was taken from, and, if
    it was derived from one image at the same place (PS3.3 C.7.6.1.1.3), that of its source: what
    was drawn before harmonization fits the harmonized images.
    """
    slices: dict[ImageName, int] = {}
    for index, header in enumerate(volume.headers):
        for name in (*source_images(header), *_own_names(header)):
            slices[name] = index
    return slices


def source_images(header: Dataset) -> list[ImageName]:
    """The image that a derived one was computed from and lies on; empty if it names none."""
    sources = [
        item
        for item in items(header, "SourceImageSequence")
        if any(
            text(code, "CodeValue") == _SOURCE_FOR_PROCESSING
            for code in items(item, "PurposeOfReferenceCodeSequence")
        )
        and text(item, "SpatialLocationsPreserved") in ("YES", "")
    ]
    return [image_name(item) for item in sources] if len(sources) == 1 else []


def images_named(dataset: Dataset, keyword: str) -> list[ImageName]:
    """Images that the items of a sequence refer to."""
    return [image_name(item) for item in items(dataset, keyword)]


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """A sequence's items; none where it is absent, damaged or no sequence."""
    with quiet():
        try:
            value = dataset.get(keyword)
            return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
        except Exception:  # a damaged value is an absent value; callers say what they miss
            return []


def _own_names(header: Dataset) -> Iterator[ImageName]:
    yield text(header, "SOPInstanceUID"), 0
    yield from images_named(header, "ConversionSourceAttributesSequence")


def image_name(item: Dataset) -> ImageName:
    """Name of the image that an item of a sequence refers to; no UID where it refers to none."""
    return text(item, "ReferencedSOPInstanceUID"), whole(item, "ReferencedFrameNumber") or 0
