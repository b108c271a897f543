"""Derived images in the place of their sources, wherever a DICOM object refers to these."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydicom import DataElement, Dataset, Sequence

from cvsct.core.errors import SeriesError
from cvsct.core.slice_average import SliceAverage
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.derive import source_image, source_of
from cvsct.io.dicom.header import text
from cvsct.io.dicom.references import ImageName, image_name, items, slices_by_name
from cvsct.io.dicom.segmentation import SEGMENTATIONS

SERIES_SEQUENCES = ("ReferencedSeriesSequence", "RTReferencedSeriesSequence")
"""Sequences with an item for each series that an object refers to."""
OTHER_STUDIES = "StudiesContainingOtherReferencedInstancesSequence"
IMAGE_SEQUENCES = ("ReferencedInstanceSequence", "ReferencedSOPSequence", "ContourImageSequence")
"""Sequences of images within such an item."""


@dataclass(frozen=True)
class Successors:
    """Images of a derived series by the names of the source images that they stand for.

    Args:
        series: UIDs of the source series.
        series_uid, study_uid: of the derived series.
        by_name: indices of the derived images of each source image; several where thick slices
            overlap, none where a slice went into no thick one.
        images: references to the derived images, in slice order.
        created: `Date` and `Time` at which the derived images say that they were made.
    """

    series: frozenset[str]
    series_uid: str
    study_uid: str
    by_name: Mapping[ImageName, tuple[int, ...]] = field(repr=False)
    images: tuple[Dataset, ...] = field(repr=False)
    created: Mapping[str, str]

    @classmethod
    def of(cls, source: CTVolume, derived: CTVolume, average: SliceAverage | None) -> Successors:
        """Match the slices of two volumes with headers: by number, or by what was averaged.

        Raises:
            SeriesError: if several images of a series share a SOP Instance UID.
        """
        for what, volume in (("source", source), ("derived", derived)):
            if len({source_of(header) for header in volume.headers}) < len(volume.headers):
                raise SeriesError(
                    f"{what} series: several images share one SOP Instance UID, so that a mask "
                    "cannot tell them apart; give the images UIDs of their own"
                )
        of_slice = _derived_indices(len(source), average)
        by_name = {name: of_slice[i] for name, i in slices_by_name(source).items()}
        for uid in {uid for uid, frame in by_name if frame}:  # the whole of a multi-frame file
            frames = [by_name[name] for name in by_name if name[0] == uid and name[1]]
            by_name[uid, 0] = tuple(sorted({i for indices in frames for i in indices}))
        first = derived.headers[0]
        return cls(
            frozenset(text(header, "SeriesInstanceUID") for header in source.headers),
            text(first, "SeriesInstanceUID"),
            text(first, "StudyInstanceUID"),
            by_name,
            tuple(_reference(header) for header in derived.headers),
            {
                part: when
                for part in ("Date", "Time")
                if (when := text(first, f"InstanceCreation{part}"))
            },
        )

    def knows_any(self, dataset: Dataset) -> bool:
        """Whether a data set refers to an image of the source, at any depth."""
        return any(
            image_name(item) in self.by_name or self.knows_any(item) for item in _all_items(dataset)
        )

    def is_ours(self, series_item: Dataset) -> bool:
        """Whether an item that stands for a series stands for the source."""
        uid = text(series_item, "SeriesInstanceUID")
        return uid in self.series or self.knows_any(series_item)

    def drop_foreign(self, dataset: Dataset) -> int:
        """Remove references to other series, and to images that the source was read without.

        Returns:
            Number of other series of images that it referred to; what it was carried over from
            before, which is named too, is none.
        """
        dropped = 0
        for keyword in SERIES_SEQUENCES:
            if keyword not in dataset:
                continue
            ours = [item for item in items(dataset, keyword) if self.is_ours(item)]
            dropped += sum(
                not self.is_ours(item) and not _holds_masks(item)
                for item in items(dataset, keyword)
            )
            for item in ours:
                for images in IMAGE_SEQUENCES:
                    if images in item:
                        known = [i for i in items(item, images) if image_name(i) in self.by_name]
                        setattr(item, images, Sequence(known))
            setattr(dataset, keyword, Sequence(ours))
            if not ours:
                del dataset[keyword]
        studies = items(dataset, OTHER_STUDIES)
        if studies:
            dropped += sum(self.drop_foreign(study) for study in studies)
            kept = [study for study in studies if items(study, SERIES_SEQUENCES[0])]
            setattr(dataset, OTHER_STUDIES, Sequence(kept))
            if not kept:
                del dataset[OTHER_STUDIES]
        return dropped

    def repoint(self, dataset: Dataset) -> None:
        """Put derived images and their series into the place of the source's, at any depth.

        A list of the source's images that has none left, for none of them has a successor, gets
        all derived images.
        """
        for element in list(_sequences(dataset)):
            pointed: list[Dataset] = []
            seen: set[int] = set()
            for item in element.value:
                indices = self.by_name.get(image_name(item))
                if indices is None:
                    if "SeriesInstanceUID" in item and self.is_ours(item):
                        self._repoint_series(item)
                    self.repoint(item)
                    pointed.append(item)
                    continue
                for index in (i for i in indices if i not in seen):
                    seen.add(index)
                    pointed.append(self._pointed(item, index))
            element.value = Sequence(pointed)

    def reference(self, index: int) -> Dataset:
        """A new item that refers to a derived image."""
        return copy.deepcopy(self.images[index])

    def references(self) -> Sequence:
        """New items that refer to all derived images."""
        return Sequence([self.reference(i) for i in range(len(self.images))])

    def _repoint_series(self, item: Dataset) -> None:
        item.SeriesInstanceUID = self.series_uid
        for images in IMAGE_SEQUENCES:
            if images in item and not any(
                self.by_name.get(image_name(image), ()) for image in items(item, images)
            ):
                setattr(item, images, self.references())

    def _pointed(self, item: Dataset, index: int) -> Dataset:
        """An item with another image; all else that it says of the reference is kept."""
        pointed = copy.deepcopy(item)
        if "ReferencedFrameNumber" in pointed:
            del pointed.ReferencedFrameNumber
        pointed.update(self.reference(index))
        return pointed


def _holds_masks(series_item: Dataset) -> bool:
    """Whether an item that stands for a series names segmentations alone."""
    named = [image for images in IMAGE_SEQUENCES for image in items(series_item, images)]
    return bool(named) and all(
        text(image, "ReferencedSOPClassUID") in SEGMENTATIONS for image in named
    )


def _derived_indices(n_slices: int, average: SliceAverage | None) -> list[tuple[int, ...]]:
    """For each source slice the derived ones that hold it."""
    if average is None:
        return [(i,) for i in range(n_slices)]
    holders: list[list[int]] = [[] for _ in range(n_slices)]
    for thick in range(len(average)):
        for i in average.sources(thick):
            holders[i].append(thick)
    return [tuple(indices) for indices in holders]


def _reference(header: Dataset) -> Dataset:
    """Reference to an image as objects of radiotherapy and segmentations have it (PS3.3 10.3)."""
    full = source_image(header, in_place=True)
    reference = Dataset()
    for keyword in (
        "ReferencedSOPClassUID", "ReferencedSOPInstanceUID", "ReferencedFrameNumber"
    ):  # fmt: skip
        if keyword in full:
            reference[keyword] = full[keyword]
    return reference


def _sequences(dataset: Dataset) -> Iterator[DataElement]:
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if element is not None and element.VR == "SQ":
            yield dataset[tag]


def _all_items(dataset: Dataset) -> Iterator[Dataset]:
    for element in _sequences(dataset):
        yield from element.value
