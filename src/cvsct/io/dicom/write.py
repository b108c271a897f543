"""Writing of a volume's new values as a derived CT series.

Everything a rerun could change is left out, so the same input gives the same bytes: identifiers
are hashes of the source's, and dates of making the images are absent or given by the caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from pydicom import Dataset

from cvsct.core.errors import GeometryError, SeriesError
from cvsct.core.files import write_atomic, write_json
from cvsct.core.volume import AIR_FLOOR_HU, CTVolume
from cvsct.io.dicom.derive import Derivation, derived_header, prepend_remark, source_of
from cvsct.io.dicom.geometry import plane_of
from cvsct.io.dicom.header import quiet, text
from cvsct.io.dicom.pixels import Encoding, encoding_of
from cvsct.io.dicom.rewrite import file_bytes
from cvsct.io.dicom.uids import file_meta

__all__ = ["UID_MAP", "Derivation", "DerivedSeries", "DerivedWriter", "write_derived"]

UID_MAP = "uid_map.json"


@dataclass(frozen=True)
class DerivedSeries:
    """A series that was written.

    Args:
        files: one for each slice, in slice order.
        uid_map: source UID to derived UID, under `series` and `instances`; also in `uid_map.json`.
            A frame of a multi-frame file is `UID#frame`; of images that share a UID, one is
            `UID@z`, by its position in mm along the slice normal.
    """

    series_uid: str
    source_series_uid: str
    folder: Path
    files: tuple[Path, ...]
    uid_map: dict[str, Any]


class SeriesFolder:
    """The files of one derived series, written one by one; `finish` adds the UID map.

    Args:
        folder: one series a folder; files of an earlier identical run are replaced.
        n_slices: of the whole series.
    """

    def __init__(self, folder: Path, n_slices: int) -> None:
        self._folder, self._n_slices = folder, n_slices
        self._files: list[Path] = []

    @property
    def place(self) -> tuple[int, int]:
        """Number of the next slice in the series, from 1, and how many there will be."""
        return len(self._files) + 1, self._n_slices

    def add(self, instance_uid: str, content: bytes) -> None:
        """Write the next slice.

        Raises:
            SeriesError: if there is one of that UID.
        """
        path = self._folder / f"{hashlib.sha256(instance_uid.encode()).hexdigest()[:32]}.dcm"
        if path in self._files:
            raise SeriesError(
                f"slice {len(self._files) + 1} of {self._n_slices}: shares its SOP Instance "
                "UID, position and pixels with another; remove the copy"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files.append(path)
        write_atomic(path, content, private=True)

    def finish(
        self, source_series: str, series_uid: str, instances: Mapping[str, str]
    ) -> DerivedSeries:
        """Write the UID map, when all slices are there.

        Args:
            instances: derived UID by the name of its source.

        Raises:
            SeriesError: if there are not as many files as slices.
        """
        n_files = sum(file.is_file() for file in set(self._files))
        if n_files != self._n_slices:
            raise SeriesError(
                f"{n_files} files were written for {self._n_slices} slices; check the disk and run "
                "it again"
            )
        uid_map: dict[str, Any] = {
            "research_use_only": True,
            "series": {source_series: series_uid},
            "instances": dict(instances),
        }
        write_json(self._folder / UID_MAP, uid_map, private=True)
        return DerivedSeries(series_uid, source_series, self._folder, tuple(self._files), uid_map)


class DerivedWriter:
    """Writes a derived series part by part, in slice order; `finish` adds its UID map.

    Args:
        folder: one series a folder; files of an earlier identical run are replaced.
        n_slices: of the whole series.
        repeated: SOP Instance UIDs of the source that are not unique. Where they occur, position
            and stored values are hashed into the derived UID; all others follow from the UID alone.
    """

    def __init__(
        self,
        folder: Path,
        derivation: Derivation,
        n_slices: int,
        repeated: Collection[str] = (),
    ) -> None:
        self._folder, self._derivation = SeriesFolder(folder, n_slices), derivation
        self._repeated = frozenset(repeated)
        self._series: tuple[str, str] = ("", "")
        self._instances: dict[str, str] = {}

    def write(
        self,
        part: CTVolume,
        hu: Float[np.ndarray, "slices rows columns"],
        remarks: Sequence[str] = (),
    ) -> None:
        """Write the next slices.

        Args:
            part: those slices as read from DICOM; their padding is written back unchanged.
            hu: the new values. They are rounded and clipped to what the source can store.
            remarks: what each slice's Image Comments begin with; empty ones leave them as they are.

        Raises:
            SeriesError: if the part did not come from DICOM, or the new values are not finite.
            GeometryError: if the new values have another shape than the source.
        """
        number, n_slices = self._folder.place
        refuse_unfit(part, hu, number - 1, n_slices)
        if len(part.headers) != len(hu):
            raise SeriesError(
                "the volume has no DICOM headers to derive a series from; "
                "read it from DICOM, or write NIfTI"
            )
        source_series = text(part.headers[0], "SeriesInstanceUID")
        self._series = source_series, self._derivation.uid(source_series, "series")
        for i, header in enumerate(part.headers):
            known_as, content = image_identity(part, i, self._repeated)
            uid = text(header, "SOPInstanceUID")
            instance_uid = self._derivation.uid(uid, "instance", content)
            self._instances[known_as] = instance_uid
            header_of = partial(
                self._header, uid=instance_uid, remark=remarks[i] if remarks else ""
            )
            self._folder.add(
                instance_uid, slice_bytes(part, hu[i], i, self._folder.place, header_of)
            )

    def _header(self, source: Dataset, encoding: Encoding, *, uid: str, remark: str) -> Dataset:
        header = derived_header(source, encoding, self._derivation, uid)
        if remark:
            prepend_remark(header, remark)
        return header

    def finish(self) -> DerivedSeries:
        """Write the UID map, when all slices are there.

        Raises:
            SeriesError: if there are not as many files as slices.
        """
        return self._folder.finish(*self._series, self._instances)


def write_derived(
    volume: CTVolume,
    hu: Float[np.ndarray, "slices rows columns"],
    folder: Path,
    derivation: Derivation,
) -> DerivedSeries:
    """Write new values of a volume as a derived series, one file a slice, and its UID map.

    Args:
        volume: the source as read from DICOM; its padding is written back unchanged.
        hu: the new values. They are rounded and clipped to what the source's encoding can store.
        folder: one series a folder; files of an earlier identical run are replaced.

    Raises:
        SeriesError: if the volume did not come from DICOM, or the new values are not finite.
        GeometryError: if the new values have another shape than the source.
    """
    writer = DerivedWriter(folder, derivation, len(volume.hu))
    writer.write(volume, hu)
    return writer.finish()


def image_identity(
    part: CTVolume, i: int, repeated: Collection[str]
) -> tuple[str, tuple[str, str] | None]:
    """Key of a slice in the UID map, and what tells it from images that share its UID.

    Args:
        repeated: SOP Instance UIDs that are not unique; position and stored values tell their
            images apart, and all others need nothing.
    """
    header = part.headers[i]
    source_uid, frame = source_of(header)
    known_as = f"{source_uid}#{frame}" if frame else source_uid
    if source_uid not in repeated:
        return known_as, None
    z_mm = position_mm(header)
    return f"{known_as}@{z_mm}", (z_mm, stored_sha256(part, i))


def position_mm(header: Dataset) -> str:
    """A slice's position along its own normal, to 0.01 mm."""
    plane = plane_of("slice", header)
    return f"{float(plane.position_mm @ plane.normal) + 0.0:.2f}".replace("-0.00", "0.00")


def stored_sha256(part: CTVolume, i: int) -> str:
    """SHA-256 of a slice's stored values, whatever its transfer syntax."""
    encoding = encoding_of("slice", part.headers[i])
    return hashlib.sha256(_stored(part, part.hu[i], i, encoding).tobytes()).hexdigest()


def refuse_unfit(
    part: CTVolume, hu: Float[np.ndarray, "slices rows columns"], before: int, n_slices: int
) -> None:
    """Refuse new values that do not fit the slices they are to stand for, or are not finite.

    Args:
        before, n_slices: how many slices were written before, and will be in all.
    """
    if hu.shape != part.hu.shape:
        raise GeometryError(
            f"new values have shape {hu.shape}, the source series {part.hu.shape}; "
            "write values for every voxel of the source"
        )
    for i, values in enumerate(hu, before + 1):
        if not np.isfinite(values).all():
            raise SeriesError(
                f"slice {i} of {n_slices}: {int((~np.isfinite(values)).sum())} new values are "
                "not finite, expected HU everywhere; nothing was written, check the model"
            )


def slice_bytes(
    volume: CTVolume,
    hu: Float[np.ndarray, "rows columns"],
    i: int,
    place: tuple[int, int],
    header_of: Callable[[Dataset, Encoding], Dataset],
) -> bytes:
    """One slice as a file; what the source's header cannot be rewritten for is refused.

    Args:
        volume: as read from DICOM.
        hu: the new values.
        i: of the slice in `volume`.
        place: its number in the series, from 1, and how many there are.
        header_of: makes the new header, without pixels, from the source's and its encoding.
    """
    name = f"slice {place[0]} of {place[1]}"
    header = volume.headers[i]
    with quiet():
        encoding = encoding_of(name, header)
    if hu.shape != (encoding.rows, encoding.columns):
        raise GeometryError(
            f"{name}: {hu.shape[0]} x {hu.shape[1]} new values, its header says {encoding.rows} x "
            f"{encoding.columns}; write the volume as it was read, not cropped"
        )
    stored = _stored(volume, hu, i, encoding)
    try:
        with quiet():
            dataset = header_of(header, encoding)
            dataset.InstanceNumber = place[0]
            dataset.add_new("PixelData", "OW", stored.tobytes())
            return file_bytes(dataset, file_meta(dataset.SOPInstanceUID))
    except Exception as error:  # pydicom raises many kinds, and quotes values in their text
        raise SeriesError(
            f"{name}: its header cannot be rewritten ({type(error).__name__}); "
            "re-export the source series"
        ) from None


def _stored(
    volume: CTVolume, hu: Float[np.ndarray, "rows columns"], i: int, encoding: Encoding
) -> Integer[np.ndarray, "rows columns"]:
    """HU to stored values: rounded, clipped, source padding put back.

    A voxel does not become a padding value, unless it held that value, as measured, in the source.
    """
    lowest, highest = encoding.limits
    stored, before = (
        np.rint((x.astype(np.float64) - encoding.intercept) / encoding.slope)
        .clip(lowest, highest)
        .astype(np.int64)
        for x in (hu, volume.hu[i])
    )
    if encoding.padding is not None:
        first, last = encoding.padding
        inside = (stored >= first) & (stored <= last) & (stored != before)
        stored[inside] = last + 1 if last < highest else first - 1
    if volume.padding is not None:
        padding = volume.padding[i]
        stored[padding] = _padding_values(volume, i, encoding)
    return stored.astype("<i2" if encoding.signed else "<u2")


def _padding_values(volume: CTVolume, i: int, encoding: Encoding) -> np.ndarray:
    if volume.padding_stored:
        return volume.padding_stored[i]
    if encoding.padding is not None:
        return np.array([encoding.padding[0]])
    air = round((AIR_FLOOR_HU - encoding.intercept) / encoding.slope)
    return np.array([min(max(air, encoding.limits[0]), encoding.limits[1])])
