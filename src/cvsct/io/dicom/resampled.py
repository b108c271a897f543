"""Thin slices averaged to thicker ones, written as a derived CT series of the same scanner.

What holds for one slice alone (exposure, times) is that of the source that a slice has most of.
Sources: PS3.3 C.7.6.1 (General Image), C.7.6.2 (Image Plane), C.12.1 (SOP Common); PS3.16 CID 7203.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydicom import Dataset, Sequence

from cvsct import __version__
from cvsct.core.files import canonical_json
from cvsct.core.slice_average import SliceAverage
from cvsct.core.thick_slices import ThickSlice, padding_values
from cvsct.core.volume import CTVolume, Geometry
from cvsct.io.dicom.derive import (
    RESAMPLED_BY,
    RESEARCH,
    SOFTWARE,
    add_equipment,
    coded,
    derived_copy,
    series_number,
    set_derivation,
    set_description,
    set_lossy,
    source_image,
)
from cvsct.io.dicom.geometry import plane_of
from cvsct.io.dicom.header import number, text, whole
from cvsct.io.dicom.pixels import Encoding, encoding_of
from cvsct.io.dicom.rewrite import decimal
from cvsct.io.dicom.uids import uid_of
from cvsct.io.dicom.write import DerivedSeries, SeriesFolder, image_identity, slice_bytes

RESAMPLED_CODE = "113085"
"""DCM code of images that were resampled in space."""
_COUNTS = ("ImagesInAcquisition", "NumberOfSeriesRelatedInstances")
"""Attributes that count images; there are fewer now."""
_OVERLAYS = range(0x6000, 0x6100, 2)


@dataclass(frozen=True)
class Resampling:
    """What a series of thicker slices records in its headers; its UIDs follow from it.

    Args:
        source_thickness_mm, source_spacing_mm: of the slices that were averaged.
        thickness_mm, spacing_mm: of the thicker slices.
        z_mm: their centers along the normal, to 0.001 mm.
        weights: hash of which slices are averaged, and with what weights.
    """

    source_thickness_mm: float
    source_spacing_mm: float
    thickness_mm: float
    spacing_mm: float
    z_mm: tuple[float, ...]
    weights: str

    @classmethod
    def of(cls, geometry: Geometry, thickness_mm: float, average: SliceAverage) -> Resampling:
        """What is recorded of an average.

        Args:
            geometry: of the source.
            thickness_mm: of its slices.
        """
        return cls(
            thickness_mm,
            geometry.spacing_mm,
            average.thickness_mm,
            average.spacing_mm,
            tuple(round(float(z), 3) + 0.0 for z in average.z_mm),
            _hash(average),
        )

    def uid(self, source_uid: str, role: str, content: Hashable = None) -> str:
        """UID of an object made from one with `source_uid`.

        Args:
            content: tells apart images of one source.
        """
        made_by = ("resampled", __version__, self.thickness_mm, self.z_mm, self.weights)
        return uid_of(role, source_uid, *made_by, *((content,) if content else ()))

    def __str__(self) -> str:
        return (
            f"{RESEARCH}. {SOFTWARE} {__version__}, spatial resampling: slices of "
            f"{self.source_thickness_mm:.4g} mm every {self.source_spacing_mm:.4g} mm were "
            f"averaged to slices of {self.thickness_mm:.4g} mm every {self.spacing_mm:.4g} mm. "
            "Nothing else was changed."
        )


def _hash(average: SliceAverage) -> str:
    """Hash of which slices are averaged and with what weights, to a thousandth."""
    parts = [
        [first, [round(float(weight), 3) + 0.0 for weight in weights]]
        for first, weights in zip(average.first, average.weights, strict=True)
    ]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


class ResampledWriter:
    """Writes thicker slices one by one, in slice order; `finish` adds the UID map.

    The map names, for each source, the slice that has most of it.

    Args:
        folder: one series a folder; files of an earlier identical run are replaced.
        n_slices: of the whole series.
        repeated: SOP Instance UIDs of the source that are not unique, as in `DerivedWriter`.
    """

    def __init__(
        self, folder: Path, resampling: Resampling, n_slices: int, repeated: Collection[str] = ()
    ) -> None:
        self._folder, self._resampling = SeriesFolder(folder, n_slices), resampling
        self._repeated = frozenset(repeated)
        self._source_series = ""
        self._most: dict[str, tuple[float, str]] = {}

    def write(self, thick: ThickSlice) -> None:
        """Write the next slice.

        Raises:
            SeriesError: if the nearest source's header cannot be rewritten.
        """
        known_as, content = zip(
            *(image_identity(source, 0, self._repeated) for source in thick.sources), strict=True
        )
        about = (self._folder.place[0], known_as, tuple(each for each in content if each))
        self._source_series = text(thick.nearest_source.headers[0], "SeriesInstanceUID")
        instance_uid = self._resampling.uid(self._source_series, "instance", about)
        header_of = partial(
            _header, thick=thick, resampling=self._resampling, instance_uid=instance_uid
        )
        volume = _padded_as(thick)
        content_bytes = slice_bytes(volume, thick.hu, 0, self._folder.place, header_of)
        self._folder.add(instance_uid, content_bytes)
        for name, weight in zip(known_as, thick.weights, strict=True):
            if weight > self._most.get(name, (0.0, ""))[0]:
                self._most[name] = float(weight), instance_uid

    def finish(self) -> DerivedSeries:
        """Write the UID map, when all slices are there.

        Raises:
            SeriesError: if there are not as many files as slices.
        """
        series_uid = self._resampling.uid(self._source_series, "series")
        instances = {name: uid for name, (_, uid) in self._most.items()}
        return self._folder.finish(self._source_series, series_uid, instances)


def _padded_as(thick: ThickSlice) -> CTVolume:
    """The nearest source with the padding of the thicker slice, stored as the sources store it."""
    volume = thick.nearest_source
    if not thick.padding.any():
        return replace(volume, padding=None, padding_stored=())
    encoding = encoding_of("slice", volume.headers[0])
    alike = [s for s in thick.other_sources if encoding_of("slice", s.headers[0]) == encoding]
    values = padding_values(thick, [volume, *alike])
    return replace(
        volume, padding=thick.padding[None], padding_stored=() if values is None else (values,)
    )


def _header(
    source: Dataset,
    encoding: Encoding,
    *,
    thick: ThickSlice,
    resampling: Resampling,
    instance_uid: str,
) -> Dataset:
    """The header of a thicker slice: the nearest source's, with its own plane and derivation."""
    header = derived_copy(source, encoding)
    headers = [each.headers[0] for each in thick.sources]
    header.SOPInstanceUID = instance_uid
    header.SeriesInstanceUID = resampling.uid(text(source, "SeriesInstanceUID"), "series")
    made_by = resampling.uid("", "number")
    header.SeriesNumber = series_number(whole(source, "SeriesNumber"), made_by)
    set_description(header, source, f"slices of {resampling.thickness_mm:.4g} mm")
    code = coded(RESAMPLED_CODE, "DCM", "Spatial resampling")
    set_derivation(header, source, str(resampling), code)
    header.SourceImageSequence = Sequence([source_image(each, in_place=False) for each in headers])
    add_equipment(header, source, RESAMPLED_BY, str(resampling))
    _set_plane(header, source, thick, resampling)
    for each in headers:
        set_lossy(header, each)
    for keyword in _COUNTS:
        if keyword in header:
            del header[keyword]
    for tag in [tag for tag in header.keys() if tag.group in _OVERLAYS]:  # noqa: SIM118
        del header[tag]  # drawn on one of the thin slices
    return header


def _set_plane(header: Dataset, source: Dataset, thick: ThickSlice, resampling: Resampling) -> None:
    """Set position, thickness and distance of the slice; the rest of its plane is the source's."""
    header.ImagePositionPatient = [decimal(mm) for mm in thick.position_mm]
    header.SliceThickness = decimal(resampling.thickness_mm)
    header.SpacingBetweenSlices = decimal(resampling.spacing_mm)
    location = number(source, "SliceLocation")
    if "SliceLocation" in header:
        del header["SliceLocation"]
    if location is None:
        return
    z_mm = _z_mm(source)
    rate = next(
        (
            (other - location) / (_z_mm(each.headers[0]) - z_mm)
            for each in (thick.sources[0], thick.sources[-1])
            if each is not thick.nearest_source
            and (other := number(each.headers[0], "SliceLocation")) is not None
        ),
        None,
    )
    moved = thick.z_mm - z_mm
    if rate is not None or abs(moved) < 1e-3:
        header.SliceLocation = decimal(round(location + (rate or 0.0) * moved, 6))


def _z_mm(header: Dataset) -> float:
    plane = plane_of("slice", header)
    return float(plane.position_mm @ plane.normal)
