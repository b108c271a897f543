"""CT in Hounsfield units with its geometry, and the window through which networks see it.

`HUWindow` is the only code that maps HU to [-1, 1] and back; everything else in this package
works in HU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.errors import GeometryError

if TYPE_CHECKING:
    from pydicom import Dataset

UNNAMED = "study-"
"""Begins the hash of who is shown where only the study tells: another study may show the same."""

PADDING_HU = -1500.0
"""At or below this a voxel is padding, declared or not: scanners write -2000, -2048 or lower."""
AIR_FLOOR_HU = -1024.0
"""The lowest CT number most scanners store; what padding is read as."""


@dataclass(frozen=True)
class HUWindow:
    """The Hounsfield range a network sees, mapped to [-1, 1].

    Paper, section "Model Implementation": -1000 to 900 HU.
    """

    low_hu: float = -1000.0
    high_hu: float = 900.0

    def __post_init__(self) -> None:
        if not self.low_hu < self.high_hu:
            raise ValueError(f"HU window [{self.low_hu}, {self.high_hu}] is empty")

    def to_unit(self, hu: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Clip to the window and scale to [-1, 1]; float32 in, float32 out."""
        clipped: Float[np.ndarray, "*shape"] = np.clip(hu, self.low_hu, self.high_hu)
        return (clipped - self.low_hu) * (2 / (self.high_hu - self.low_hu)) - 1

    def to_fraction(self, hu: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Clip to the window and scale to [0, 1], the scale of the paper's PSNR (eq. 10)."""
        return (self.to_unit(hu) + 1) / 2

    def restore(
        self, unit: Float[np.ndarray, "*shape"], source_hu: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape"]:
        """Scale [-1, 1] back to HU; voxels outside the window keep their source value."""
        hu = (unit + 1) * ((self.high_hu - self.low_hu) / 2) + self.low_hu
        inside = (source_hu >= self.low_hu) & (source_hu <= self.high_hu)
        return np.where(inside, hu, source_hu)


@dataclass(frozen=True)
class Geometry:
    """Where the slices lie in the patient coordinate system (DICOM PS3.3 C.7.6.2).

    Args:
        positions_mm: centre of each slice's first voxel (Image Position (Patient)), in slice order.
        row_direction: direction of increasing column index (first half of Image Orientation).
        column_direction: direction of increasing row index (second half).
        pixel_mm: spacing between rows and between columns (Pixel Spacing).
        thickness_mm: nominal slice thickness; 0 where the file does not say.
        frame_of_reference: Frame of Reference UID; positions compare only within one frame.
    """

    positions_mm: Float[np.ndarray, "slices 3"]
    row_direction: tuple[float, float, float]
    column_direction: tuple[float, float, float]
    pixel_mm: tuple[float, float]
    thickness_mm: float
    frame_of_reference: str = ""

    @property
    def normal(self) -> Float[np.ndarray, " 3"]:
        """Unit vector along which the slices are ordered."""
        return np.cross(np.array(self.row_direction), np.array(self.column_direction))

    @property
    def z_mm(self) -> Float[np.ndarray, " slices"]:
        """Position of each slice along the normal."""
        z: Float[np.ndarray, " slices"] = self.positions_mm @ self.normal
        return z

    @property
    def spacing_mm(self) -> float:
        """Mean distance between slices; the thickness where there is only one slice."""
        z = self.z_mm
        return float((z[-1] - z[0]) / (len(z) - 1)) if len(z) > 1 else self.thickness_mm

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """From slice, row and column index to mm along left, posterior and superior (DICOM)."""
        first, last = self.positions_mm[0], self.positions_mm[-1]
        affine = np.eye(4)
        if len(self.positions_mm) > 1:
            affine[:3, 0] = (last - first) / (len(self.positions_mm) - 1)
        else:
            affine[:3, 0] = self.normal * (self.spacing_mm or 1.0)
        affine[:3, 1] = np.array(self.column_direction) * self.pixel_mm[0]
        affine[:3, 2] = np.array(self.row_direction) * self.pixel_mm[1]
        affine[:3, 3] = first
        return affine


@dataclass(frozen=True)
class Acquisition:
    """What made the images, as the header says it; empty or 0 where it does not say.

    Only technical attributes: nothing here identifies a patient.
    """

    manufacturer: str = ""
    model: str = ""
    kernel: str = ""
    kvp: float = 0.0

    @property
    def scanner(self) -> str:
        """Manufacturer and model, the former once where the latter names it too."""
        named = self.model.lower().startswith(self.manufacturer.lower())
        return self.model if named else f"{self.manufacturer} {self.model}".strip()

    def __str__(self) -> str:
        kernel = f"kernel {self.kernel}" if self.kernel else ""
        kvp = f"{self.kvp:g} kVp" if self.kvp else ""
        return ", ".join(part for part in (self.scanner, kernel, kvp) if part) or "unknown scanner"


@dataclass(frozen=True)
class SimulatedStudy:
    """What a virtual scanner says of a series it made, besides its voxels and `Acquisition`.

    Args:
        body: name of the virtual body. A body is one patient, one study and one frame of
            reference, whichever scanner it lies on.
        identity: hash of all that shapes the pixels; series of another identity get other UIDs.
        series_number: unique within the body's study.
        mas, rotation_s, ctdi_vol_mgy: exposure of one rotation; 32 cm phantom's CTDIvol.
        collection_diameter_mm: the circle that every view sees (Data Collection Diameter).
        collimation_mm: width of one detector row at the isocentre; 0 where the model has no rows.
        filter_type: the beam-shaping filter.
        reconstruction: what was done beside filtered back-projection, in the maker's words
            (`ADMIRE 3`); empty where nothing was.
    """

    body: str
    identity: str
    series_number: int
    mas: float
    rotation_s: float
    ctdi_vol_mgy: float
    source_isocentre_mm: float
    source_detector_mm: float
    collection_diameter_mm: float
    focal_spot_mm: float
    filter_type: str
    collimation_mm: float = 0.0
    reconstruction: str = ""

    @staticmethod
    def file_name(instance: int) -> str:
        """The file of one slice in its series' folder; slices count from 1."""
        return f"{instance:04d}.dcm"


@dataclass(frozen=True)
class CTVolume:
    """Axial CT in Hounsfield units, slices ordered by position along their normal.

    Args:
        hu: CT numbers, float32. Padding voxels hold `AIR_FLOOR_HU`.
        geometry: where the slices lie.
        acquisition: what made them.
        padding: true where the file holds no measurement (outside the field of view); a writer
            restores the source's stored values there. `None` where nothing is padded.
        padding_stored: for each slice the values its file stores in its padding voxels, in voxel
            order, or one value where all are equal; empty where nothing is padded.
        series_uid: Series Instance UID of the source; empty for images that came from elsewhere.
        patient: hash of who is shown, the same in all scans of one patient; empty where unknown.
            It begins with `UNNAMED` where there is no Patient ID and the study stands for it.
        headers: one DICOM data set a slice without its pixels, in slice order; empty likewise.
        notes: what is odd about the series and did not keep it from being read; nothing in them
            identifies a patient.
    """

    hu: Float[np.ndarray, "slices rows columns"]
    geometry: Geometry
    acquisition: Acquisition = Acquisition()
    padding: Bool[np.ndarray, "slices rows columns"] | None = None
    padding_stored: tuple[np.ndarray, ...] = field(default=(), repr=False)
    series_uid: str = ""
    patient: str = field(default="", repr=False)
    headers: tuple[Dataset, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or len(self.hu) != len(self.geometry.positions_mm):
            raise GeometryError(
                f"voxels of shape {self.hu.shape} do not fit "
                f"{len(self.geometry.positions_mm)} slice positions"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        slices, rows, columns = self.hu.shape
        return slices, rows, columns

    @property
    def pixel_mm(self) -> float:
        """In-plane sampling distance; the geometric mean where rows and columns differ."""
        rows, columns = self.geometry.pixel_mm
        return float(np.sqrt(rows * columns))

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """From slice, row and column index to mm along left, posterior and superior (DICOM)."""
        return self.geometry.affine

    @classmethod
    def from_array(
        cls,
        hu: Float[np.ndarray, "slices rows columns"],
        spacing_mm: tuple[float, float, float],
        *,
        acquisition: Acquisition = Acquisition(),
    ) -> CTVolume:
        """An axial volume around an array of HU, slices from feet to head, its first voxel at 0.

        Args:
            hu: CT numbers; values at or below -1500 HU are taken for padding.
            spacing_mm: between slices, rows and columns.
            acquisition: what made the images, where that is known.

        Raises:
            GeometryError: if the array has not three axes, holds values that are not finite, or a
                spacing is not above 0.

        Example:
            >>> volume = cvsct.CTVolume.from_array(np.zeros((4, 64, 64)), (5.0, 0.7, 0.7))
            >>> volume.shape, volume.geometry.spacing_mm
            ((4, 64, 64), 5.0)
        """
        values = np.asarray(hu, dtype=np.float32)
        if values.ndim != 3 or 0 in values.shape:
            raise GeometryError(
                f"an array of shape {values.shape}, expected slices, rows and columns"
            )
        if len(spacing_mm) != 3 or not all(0 < mm < math.inf for mm in spacing_mm):
            raise GeometryError(f"spacing {spacing_mm}, expected three lengths above 0 mm")
        if not np.isfinite(values).all():
            raise GeometryError("values that are not finite, expected HU; replace them by -1024")
        positions = np.zeros((len(values), 3))
        positions[:, 2] = np.arange(len(values)) * spacing_mm[0]
        padding = values <= PADDING_HU
        return cls(
            hu=np.where(padding, np.float32(AIR_FLOOR_HU), values),
            geometry=Geometry(
                positions, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), spacing_mm[1:], spacing_mm[0]
            ),
            acquisition=acquisition,
            padding=padding if padding.any() else None,
        )

    def __len__(self) -> int:
        """Slices."""
        return len(self.hu)

    def read(self, start: int = 0, stop: int | None = None) -> CTVolume:
        """The slices from `start` to before `stop`, as of a series on disk."""
        return self.select(slice(start, stop))

    def with_hu(self, hu: Float[np.ndarray, "slices rows columns"]) -> CTVolume:
        """The same geometry and headers with other values.

        Raises:
            GeometryError: if the shape differs.
        """
        if hu.shape != self.hu.shape:
            raise GeometryError(
                f"new values have shape {hu.shape}, the volume {self.hu.shape}; "
                "harmonise whole volumes, or crop both"
            )
        return replace(self, hu=hu)

    def select(self, slices: slice | list[int]) -> CTVolume:
        """Some of the slices, in the order given."""
        index = list(range(len(self.hu)))[slices] if isinstance(slices, slice) else slices
        return replace(
            self,
            hu=self.hu[index],
            geometry=replace(self.geometry, positions_mm=self.geometry.positions_mm[index]),
            padding=None if self.padding is None else self.padding[index],
            padding_stored=tuple(self.padding_stored[i] for i in index)
            if self.padding_stored
            else (),
            headers=tuple(self.headers[i] for i in index) if self.headers else (),
        )


def joined(parts: Sequence[CTVolume]) -> CTVolume:
    """Slices of one series as one volume, without what only a writer needs of them."""
    first = parts[0]
    positions = np.concatenate([part.geometry.positions_mm for part in parts])
    padding = [part.padding for part in parts if part.padding is not None]
    return replace(
        first,
        hu=np.concatenate([part.hu for part in parts]),
        geometry=replace(first.geometry, positions_mm=positions),
        padding=np.concatenate(padding) if len(padding) == len(parts) else None,
        padding_stored=(),
        headers=(),
    )


@runtime_checkable
class OpenedScan(Protocol):
    """A scan whose slices are read when asked for: a series on disk, or a volume in memory."""

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""

    @property
    def geometry(self) -> Geometry:
        """Where the slices lie."""

    @property
    def acquisition(self) -> Acquisition:
        """What made them."""

    @property
    def patient(self) -> str:
        """As in `CTVolume`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about it, in words that identify nobody."""

    def __len__(self) -> int: ...
    def read(self, start: int = 0, stop: int | None = None) -> CTVolume:
        """The slices from `start` to before `stop`, or to the last."""


@dataclass(frozen=True)
class ScanFacts:
    """What is known of a scan without its voxels.

    Args:
        shape: slices, rows, columns.
        pixel_mm: spacing between rows and between columns.
        patient: as in `CTVolume`.
        stamp: another one when the files have changed; empty where there are none.
    """

    series_uid: str
    shape: tuple[int, int, int]
    pixel_mm: tuple[float, float]
    thickness_mm: float
    acquisition: Acquisition = Acquisition()
    patient: str = field(default="", repr=False)
    stamp: str = ""

    @classmethod
    def of(cls, volume: CTVolume) -> ScanFacts:
        """The facts of a volume in memory."""
        return cls(
            series_uid=volume.series_uid,
            shape=volume.shape,
            pixel_mm=volume.geometry.pixel_mm,
            thickness_mm=volume.geometry.thickness_mm,
            acquisition=volume.acquisition,
            patient=volume.patient,
        )


@runtime_checkable
class Scans(Protocol):
    """Scans of one domain: a list of volumes, or series on disk that each pass reads again.

    Together they may be larger than memory. Hold one at a time: `map` lets go of each before it
    asks for the next, which neither a loop variable nor `enumerate` does.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[CTVolume]: ...


@runtime_checkable
class KnownScans(Scans, Protocol):
    """Scans whose facts are known before any is read."""

    @property
    def facts(self) -> tuple[ScanFacts, ...]:
        """One for each scan, in order."""


def facts_of(scans: Scans) -> tuple[ScanFacts, ...]:
    """The facts of each scan, from headers where they are at hand."""
    return scans.facts if isinstance(scans, KnownScans) else tuple(map(ScanFacts.of, scans))
