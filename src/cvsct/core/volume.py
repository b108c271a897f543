"""CT volumes in Hounsfield units with their geometry, and the HU window of networks.

`HUWindow` is the only code that maps HU to [-1, 1] and back; everything else in this package
works in HU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.errors import GeometryError, UsageError
from cvsct.core.kinds import kind_of, refuse_other_kind

if TYPE_CHECKING:
    from pydicom import Dataset

UNNAMED = "study-"
"""Prefix of a patient hash made from the study; other studies may show the same patient."""

PADDING_HU = -1500.0
"""Value at or below which a voxel is padding, declared or not: scanners write -2000 or lower."""
AIR_FLOOR_HU = -1024.0
"""Lowest CT number that most scanners store; padding is read as this value."""


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
    """Positions, directions and spacing of slices in patient coordinates (DICOM PS3.3 C.7.6.2).

    Args:
        positions_mm: center of each slice's first voxel (Image Position (Patient)), in slice order.
        row_direction: direction of increasing column index (first half of Image Orientation).
        column_direction: direction of increasing row index (second half).
        pixel_mm: spacing between rows and between columns (Pixel Spacing).
        thickness_mm: nominal slice thickness; 0 where the file does not say.
        frame_of_reference: Frame of Reference UID; positions can be compared only within one frame.
    """

    positions_mm: Float[np.ndarray, "slices 3"]
    row_direction: tuple[float, float, float]
    column_direction: tuple[float, float, float]
    pixel_mm: tuple[float, float]
    thickness_mm: float
    frame_of_reference: str = ""

    @property
    def normal(self) -> Float[np.ndarray, " 3"]:
        """Unit vector at right angles to the slices, along which they are ordered."""
        return np.cross(np.array(self.row_direction), np.array(self.column_direction))

    @property
    def z_mm(self) -> Float[np.ndarray, " slices"]:
        """Position of each slice along the normal, in mm."""
        z: Float[np.ndarray, " slices"] = self.positions_mm @ self.normal
        return z

    @property
    def spacing_mm(self) -> float:
        """Mean distance between slices in mm; the thickness where there is only one slice."""
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
    """Scanner, kernel and tube voltage of a series; empty or 0 where the header does not say.

    These are technical attributes; none identifies a patient.

    Args:
        manufacturer: Manufacturer.
        model: Manufacturer's Model Name.
        kernel: Convolution Kernel.
        kvp: tube voltage in kV (KVP).
    """

    manufacturer: str = ""
    model: str = ""
    kernel: str = ""
    kvp: float = 0.0

    @property
    def scanner(self) -> str:
        """Manufacturer and model, without repeating a manufacturer that the model names."""
        named = self.model.lower().startswith(self.manufacturer.lower())
        return self.model if named else f"{self.manufacturer} {self.model}".strip()

    def __str__(self) -> str:
        kernel = f"kernel {self.kernel}" if self.kernel else ""
        kvp = f"{self.kvp:g} kVp" if self.kvp else ""
        return ", ".join(part for part in (self.scanner, kernel, kvp) if part) or "unknown scanner"


INSTITUTION = "cvsct virtual scanner"
"""Institution Name of simulated scans, unless they belong to a simulated hospital."""


@dataclass(frozen=True)
class SimulatedStudy:
    """Attributes of a simulated series, besides its voxels and `Acquisition`.

    Args:
        body: name of the virtual body. A body is one patient, one study and one frame of
            reference, whichever scanner it lies on.
        identity: hash of all that shapes the pixels; series of another identity get other UIDs.
        series_number: unique within the body's study.
        mas, rotation_s, ctdi_vol_mgy: exposure of one rotation; 32 cm phantom's CTDIvol.
        collection_diameter_mm: the circle that every view sees (Data Collection Diameter).
        collimation_mm: width of one detector row at the isocenter; 0 where the model has no rows.
        filter_type: the beam-shaping filter.
        reconstruction: what was done beside filtered back-projection, in the maker's words
            (`ADMIRE 3`); empty where nothing was.
        pitch: of a helical scan; None where the scan is axial.
        modulation: Exposure Modulation Type.
        spacing_mm: distance between slices; 0 where it is the slice thickness.
        institution: Institution Name.
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
    pitch: float | None = None
    modulation: str = "NONE"
    spacing_mm: float = 0.0
    institution: str = INSTITUTION

    @staticmethod
    def file_name(instance: int) -> str:
        """File name of one slice in the folder of its series; slices count from 1."""
        return f"{instance:04d}.dcm"


@dataclass(frozen=True)
class Harmonization:
    """What a volume in memory was harmonized by, as its derived series would record it.

    Args:
        derived_uid: Series Instance UID of that series.
        target: scanners that it was made to look like.
        model_sha256: SHA-256 of the model.
        verdict: kind of the guard's verdict on the source; empty without one.
    """

    derived_uid: str
    target: str
    model_sha256: str
    verdict: str = ""


@dataclass(frozen=True)
class CTVolume:
    """An axial CT volume in Hounsfield units, its slices ordered by position along their normal.

    Values are frozen: `with_hu` and `select` return new volumes. `CTVolume.from_array` makes a
    volume from an array, `cvsct.read_series` reads one from files.

    Args:
        hu: CT numbers in HU, float32, of shape (slices, rows, columns). Padding voxels hold
            -1024 HU.
        geometry: positions, directions and spacing of the slices, in mm.
        acquisition: scanner, kernel and tube voltage.
        padding: true where the file holds no measurement (outside the field of view), of the same
            shape as `hu`; None where nothing is padded. Writers restore the stored values there.
        padding_stored: for each slice the stored values of its padding voxels, in voxel order, or
            one value where all are equal; empty where nothing is padded.
        series_uid: Series Instance UID; empty for volumes that were not read from files.
        patient: hash of the Patient ID, the same in all scans of one patient; empty where
            unknown. Where there is no Patient ID the hash of the study takes its place, and begins
            with `study-`.
        headers: DICOM data set of each slice, without pixels; empty where there is no DICOM.
        notes: remarks on the series that did not keep it from being read; none identifies a
            patient.
        harmonization: what harmonized it in memory; None for a scan. UID and headers are the
            source's.

    Raises:
        GeometryError: if the shape of `hu` does not fit the number of positions.
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
    harmonization: Harmonization | None = field(default=None, repr=False)

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
        """Pixel size in mm; the geometric mean where rows and columns differ."""
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
        """Make an axial volume from an array of HU, with slices from feet to head.

        The first voxel lies at (0, 0, 0) mm.

        Args:
            hu: CT numbers in HU, of shape (slices, rows, columns); values at or below -1500 HU
                are taken for padding.
            spacing_mm: distances between slices, rows and columns, in mm.
            acquisition: scanner, kernel and tube voltage, where they are known.

        Raises:
            UsageError: if `hu` is no array, or `spacing_mm` no three numbers.
            GeometryError: if the array does not have three axes or holds values that are not
                finite, or a spacing is not above 0.

        Example:
            >>> volume = cvsct.CTVolume.from_array(np.zeros((4, 64, 64)), (5.0, 0.7, 0.7))
            >>> volume.shape, volume.geometry.spacing_mm
            ((4, 64, 64), 5.0)
        """
        try:
            values = np.asarray(hu, dtype=np.float32)
        except (TypeError, ValueError):
            raise UsageError(f"hu: {kind_of(hu)}, expected an array of HU") from None
        if isinstance(spacing_mm, str) or np.ndim(spacing_mm) != 1:
            raise UsageError(f"spacing_mm: {kind_of(spacing_mm)}, expected three lengths in mm")
        if values.ndim != 3 or 0 in values.shape:
            raise GeometryError(
                f"an array of shape {values.shape}, expected slices, rows and columns"
            )
        if len(spacing_mm) != 3 or not all(
            isinstance(mm, Real) and 0 < mm < math.inf for mm in spacing_mm
        ):
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
        """Number of slices."""
        return len(self.hu)

    def read(self, start: int = 0, stop: int | None = None) -> CTVolume:
        """The slices from `start` to before `stop`, with the interface of a series on disk."""
        return self.select(slice(start, stop))

    def with_hu(self, hu: Float[np.ndarray, "slices rows columns"]) -> CTVolume:
        """A volume with the same geometry and headers and other values.

        Args:
            hu: new CT numbers in HU, of the same shape.

        Raises:
            UsageError: if `hu` is no array.
            GeometryError: if the shape differs.

        Example:
            >>> volume = cvsct.CTVolume.from_array(np.zeros((4, 64, 64)), (5.0, 0.7, 0.7))
            >>> float(volume.with_hu(volume.hu + 40).hu.mean())
            40.0
        """
        refuse_other_kind(np.ndarray, "an array of HU of the volume's shape", hu=hu)
        if hu.shape != self.hu.shape:
            raise GeometryError(
                f"new values have shape {hu.shape}, the volume {self.hu.shape}; "
                "harmonize whole volumes, or crop both"
            )
        return replace(self, hu=hu)

    def select(self, slices: slice | list[int]) -> CTVolume:
        """A volume of some of the slices, in the order given; this volume where that is all.

        Args:
            slices: a slice object, or slice indices.

        Example:
            >>> volume = cvsct.CTVolume.from_array(np.zeros((4, 64, 64)), (5.0, 0.7, 0.7))
            >>> volume.select([0, 2]).shape
            (2, 64, 64)
        """
        refuse_other_kind((slice, list), "a slice object or a list of indices", slices=slices)
        everything = list(range(len(self.hu)))
        index = everything[slices] if isinstance(slices, slice) else slices
        if index == everything:
            return self
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


def join_slices(parts: Sequence[CTVolume]) -> CTVolume:
    """Join slices of one series to one volume, without the headers that only writers need."""
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
        """Positions, directions and spacing of the slices."""

    @property
    def acquisition(self) -> Acquisition:
        """Scanner, kernel and tube voltage."""

    @property
    def patient(self) -> str:
        """Hash of the patient, as in `CTVolume`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the scan, as in `CTVolume`."""

    def __len__(self) -> int: ...
    def read(self, start: int = 0, stop: int | None = None) -> CTVolume:
        """The slices from `start` to before `stop`, or to the last."""


@dataclass(frozen=True)
class ScanFacts:
    """Attributes of a scan that are known without its voxels.

    Args:
        series_uid: Series Instance UID.
        shape: slices, rows, columns.
        pixel_mm: spacing between rows and between columns, in mm.
        thickness_mm: nominal slice thickness in mm; 0 where unknown.
        acquisition: scanner, kernel and tube voltage.
        patient: hash of the patient, as in `CTVolume`.
        stamp: changes when the files of the scan change; empty for a volume in memory.
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
    """Scans of one side: a list of volumes, or series on disk that every iteration reads again.

    Together they may be larger than memory, so hold one at a time: `map` frees each scan before it
    takes the next, which neither a loop variable nor `enumerate` does.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[CTVolume]: ...


@runtime_checkable
class KnownScans(Scans, Protocol):
    """Scans whose facts are known before their voxels are read."""

    @property
    def facts(self) -> tuple[ScanFacts, ...]:
        """Facts of each scan, in order."""


def facts_of(scans: Scans) -> tuple[ScanFacts, ...]:
    """Facts of each scan, without reading voxels where the facts are known."""
    return scans.facts if isinstance(scans, KnownScans) else tuple(map(ScanFacts.of, scans))
