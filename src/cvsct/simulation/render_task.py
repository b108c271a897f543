"""A piece of a scan made slice by slice: body, scanner, file.

Every slice is independent of all others: its noise comes from a random stream named after the
scan, the slice and the tube voltage. So a scan has the same bytes however it is cut into pieces,
and a slice whose files are there already need not be made again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from cvsct import __version__
from cvsct.core.errors import GeometryError, UsageError
from cvsct.core.files import config_hash
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Acquisition, CTVolume, Geometry, SimulatedStudy
from cvsct.simulation.benchmark import FBP, Scan, ScanMode, Series, Subject
from cvsct.simulation.ground_truth import HasNodules, write_body
from cvsct.simulation.phantom.surroundings import BodyOutline, Surroundings, beside
from cvsct.simulation.physics.definition import ScannerDefinition, load_definition

if TYPE_CHECKING:
    from cvsct.simulation.physics.helical import HelicalReader, SliceSensitivity

RASTER_MM = 400.0
"""Side of the square that is projected; no body is wider."""
WIDE_RASTER_MM = 500.0
"""The same with a table or arms around the body."""
OUTLINE_SLICES, OUTLINE_PX = 7, 128
"""Slices from which the outline of a body is taken, and pixels of their side."""
KEPT_PATHS_BYTES = 192 * 2**20
"""Projections a process keeps: a repeated scan differs in its noise alone."""
OVERSCAN_MM = 20.0
"""How far a stack may reach beyond the range of a chest scan; the body goes on there."""

SeriesWriter = Callable[[CTVolume, Path, SimulatedStudy, int], object]
"""Writes slices into a folder; the last argument is the number of the first. Must be picklable."""


@runtime_checkable
class Phantom(HasNodules, Protocol):
    """What a campaign needs of a body; see `phantom.Phantom`."""

    def slab(self, z_mm: float, thickness_mm: float, grid: Any) -> np.ndarray:
        """Amounts of the basis materials, averaged over a slice."""


@runtime_checkable
class Scanner(Protocol):
    """What a campaign needs of a virtual scanner; see `scan.VirtualScanner`."""

    def paths(self, amounts: np.ndarray, extent_mm: float) -> tuple[np.ndarray, ...]:
        """Paths through the basis materials of each reading."""

    def acquire(self, paths: Sequence[np.ndarray], *about: Any, **more: Any) -> Any:
        """Water paths and exposures by tube voltage; see `scan.Acquired`."""

    def reconstruct(
        self,
        water: Mapping[float, Any],
        kernels: Sequence[str],
        grid: Any,
        reconstructions: Sequence[str],
    ) -> dict[tuple[float, str, str], np.ndarray]:
        """HU by tube voltage, kernel and reconstruction."""


def _new_body(subject: Subject) -> Phantom:
    from cvsct.simulation.phantom import phantom  # noqa: PLC0415 - brings numba, which is an extra

    if subject.kind == "lungman":
        return phantom.lungman(subject.seed, parenchyma=subject.parenchyma)
    return phantom.patient(subject.seed)


def _new_scanner(definition: ScannerDefinition) -> Scanner:
    from cvsct.simulation.physics.scan import VirtualScanner  # noqa: PLC0415 - brings numba

    return VirtualScanner(definition)


@dataclass(frozen=True)
class Physics:
    """What makes bodies and scanners; functions by name, so that worker processes find them."""

    body: Callable[[Subject], Phantom] = _new_body
    scanner: Callable[[ScannerDefinition], Scanner] = _new_scanner


REAL = Physics()


@dataclass(frozen=True)
class Piece:
    """Some slices of a scan, by their index."""

    scan: Scan
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Imaging:
    """Makes pieces of scans; picklable, so that it can be sent to worker processes.

    Args:
        out: the benchmark's folder.
        write: writes a slice as DICOM.
    """

    out: Path
    write: SeriesWriter
    physics: Physics = REAL

    def __call__(self, piece: Piece) -> Iterator[int]:
        """Make a piece; yields the images newly written after each slice.

        Files appear whole or not at all, in the hidden folder of each series.
        """
        scan = piece.scan
        scanner = _scanner(self.physics, scan.scanner)
        body = _body(self.physics, scan.body)
        write_body(self.out, scan.body, body)
        _refuse_beyond(scan, body)
        studies = {series: study_of(scan, series) for series in scan.series()}
        slices = _Slices(scan, body, scanner, self.physics)
        for i in piece.indices:
            images, loads = slices.images(i)
            for series, study in studies.items():
                told = _with_load(study, scan, series.kvp, loads[series.kvp])
                volume = _volume(scan, i, body, series, images[_key(series)])
                self.write(volume, hidden(self.out, series), told, i + 1)
            yield len(studies)


def hidden(out: Path, series: Series) -> Path:
    """Where a series' slices gather until it is complete."""
    folder = out / series.folder
    return folder.with_name(f".{folder.name}.partial")


def study_of(scan: Scan, series: Series) -> SimulatedStudy:
    """What the headers of a series say of its acquisition."""
    definition = definition_of(scan.scanner)
    geometry, protocol = definition.geometry, definition.protocol
    of_scan = scan.record()
    of_scan.pop("reconstructions", None)  # what else is made of the readings shapes no pixel
    of_scanner = definition_record(scan, (series.reconstruction,))
    offered = of_scanner.pop("reconstruction", None)
    about = {"cvsct": __version__, "scan": of_scan, "profile": of_scanner}
    if series.reconstruction != FBP:
        about["reconstruction"] = [series.reconstruction, offered]
    helical = definition.helical if scan.mode.helical else None
    return SimulatedStudy(
        body=scan.body.name,
        identity=config_hash(about),
        series_number=series.number,
        mas=series.mas,
        rotation_s=protocol.rotation_s,
        ctdi_vol_mgy=_ctdi_vol_mgy(scan, series.kvp, series.mas),
        source_isocentre_mm=geometry.source_isocentre_mm,
        source_detector_mm=geometry.source_detector_mm,
        collection_diameter_mm=2
        * geometry.source_isocentre_mm
        * float(np.sin(geometry.fan_angle_rad / 2)),
        focal_spot_mm=definition.tube.focal_spot_mm,
        filter_type="BODY",
        reconstruction=definition.told_reconstruction(series.reconstruction),
        pitch=helical.pitch if helical else None,
        modulation="XYZ_EC" if scan.mode.tube_current else "NONE",
    )


def definition_record(scan: Scan, reconstructions: Sequence[str]) -> dict[str, Any]:
    """What of a scanner's definition shapes such images: without the sections not in use."""
    used = {
        "tube_current": scan.mode.tube_current,
        "helical": scan.mode.helical,
        "reconstruction": any(name != FBP for name in reconstructions),
    }
    record = definition_of(scan.scanner).record()
    return {name: value for name, value in record.items() if used.get(name, True)}


def _ctdi_vol_mgy(scan: Scan, kvp: float, mas: float) -> float:
    definition = definition_of(scan.scanner)
    dose_mgy = definition.protocol.ctdi_vol_mgy_per_100mas[kvp] * mas / 100
    return (
        dose_mgy / definition.helical.pitch
        if scan.mode.helical and definition.helical
        else dose_mgy
    )


def _with_load(study: SimulatedStudy, scan: Scan, kvp: float, mas: float) -> SimulatedStudy:
    """What the headers of a slice say, whose tube load may have been another."""
    if not scan.mode.tube_current:
        return study
    return replace(study, mas=mas, ctdi_vol_mgy=_ctdi_vol_mgy(scan, kvp, mas))


def _refuse_beyond(scan: Scan, body: Phantom) -> None:
    low, high = body.z_range_mm
    reach = scan.thickness_mm / 2
    first, last = _z_mm(scan, 0, body) - reach, _z_mm(scan, scan.slices - 1, body) + reach
    if first < low - OVERSCAN_MM or last > high + OVERSCAN_MM:
        raise GeometryError(
            f"slices from {first:.1f} to {last:.1f} mm, but this chest lies between {low:.1f} and "
            f"{high:.1f} mm, and at most {OVERSCAN_MM:g} mm more can be scanned; plan fewer slices"
        )


class _KeptPaths:
    """Projections of the last slices, within a budget of memory."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], tuple[np.ndarray, ...]] = OrderedDict()

    def get(
        self, key: tuple[Any, ...], make: Callable[[], tuple[np.ndarray, ...]]
    ) -> tuple[np.ndarray, ...]:
        """What is kept under a key, made where it is not."""
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self._n_bytes() > KEPT_PATHS_BYTES:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _n_bytes(self) -> int:
        return sum(part.nbytes for paths in self._kept.values() for part in paths)


_KEPT_PATHS = _KeptPaths()


@dataclass(frozen=True)
class _Slices:
    """The slices of one scan."""

    scan: Scan
    body: Phantom
    scanner: Scanner
    physics: Physics
    _loads: dict[int, dict[float, float]] = field(default_factory=dict)

    def images(
        self, i: int
    ) -> tuple[dict[tuple[float, str, str], Float[np.ndarray, "rows columns"]], dict[float, float]]:
        """One slice at every kVp, with every kernel and reconstruction, and the tube's loads."""
        from cvsct.simulation.physics.scan import ImageGrid  # noqa: PLC0415 - brings numba

        scan = self.scan
        if scan.mode.helical:
            z_mm = scan.z_mm(i)
            water = self._helical.slice(z_mm)
            numbers = self._sensitivity.weights(z_mm)
            loads = {
                kvp: sum(share * self._loads[k][kvp] for k, share in numbers.items())
                for kvp in scan.kvps
            }
        else:
            acquired = self._acquire(
                scan.z_mm(i), scan.thickness_mm, scan.thickness_mm, str(scan), f"slice {i}"
            )
            water, loads = acquired.water, _loads(acquired)
        grid = ImageGrid(scan.matrix_px, scan.fov_mm, scan.shift_mm)
        return self.scanner.reconstruct(water, scan.kernels, grid, scan.reconstructions), loads

    @cached_property
    def _sensitivity(self) -> SliceSensitivity:
        from cvsct.simulation.physics.helical import SliceSensitivity  # noqa: PLC0415

        definition = definition_of(self.scan.scanner)
        if definition.helical is None:
            raise UsageError(
                f"{definition.name} has no section helical; add one to its definition, or scan "
                "axially"
            )
        return SliceSensitivity(
            definition.helical, definition.detector.row_mm, self.scan.thickness_mm
        )

    @cached_property
    def _helical(self) -> HelicalReader:
        from cvsct.simulation.physics.helical import HelicalReader  # noqa: PLC0415

        return HelicalReader(self._sensitivity, self._read, self.scan.thickness_mm)

    def _read(self, number: int) -> dict[float, Any]:
        """One reading of the lattice; its noise is the same for every thickness."""
        sensitivity = self._sensitivity
        acquired = self._acquire(
            number * sensitivity.sample_mm, sensitivity.row_mm, sensitivity.photons_mm,
            f"{self.scan.role}/{self.scan.body.name}", f"reading {number}",
        )  # fmt: skip
        self._loads[number] = _loads(acquired)
        water: dict[float, Any] = acquired.water
        return water

    def _acquire(self, z_mm: float, thickness_mm: float, photons_mm: float, *stream: str) -> Any:
        """Readings of one rotation at z from the middle of the body's range.

        Args:
            thickness_mm: of the slab whose mean is projected.
            photons_mm: thickness of an axial slice with as many photons.
            stream: names of the random stream.
        """
        scan = self.scan
        key = (
            self.physics, scan.scanner, scan.body, z_mm, thickness_mm, scan.raster_px,
            scan.mode.table, scan.mode.arms,
        )  # fmt: skip
        paths = _KEPT_PATHS.get(key, lambda: self._paths(z_mm, thickness_mm))
        return self.scanner.acquire(
            paths,
            dict(zip(scan.kvps, scan.mas, strict=True)),
            photons_mm,
            rng_of=lambda kvp: random_stream(scan.noise_seed, *stream, f"{kvp:g} kVp"),
            modulate=scan.mode.tube_current,
            variance_share=self._variance_share,
        )

    @cached_property
    def _variance_share(self) -> float:
        """Noise variance of the slice that a noise index is meant for over that of a reading."""
        if not (self.scan.mode.helical and self.scan.mode.tube_current):
            return 1.0
        law = definition_of(self.scan.scanner).tube_current
        meant_mm = law.noise_index_thickness_mm if law else None
        if meant_mm is None:
            return self._sensitivity.variance_share()
        return replace(self._sensitivity, thickness_mm=meant_mm).variance_share()

    def _paths(self, z_mm: float, thickness_mm: float) -> tuple[np.ndarray, ...]:
        from cvsct.simulation.phantom.phantom import RasterGrid  # noqa: PLC0415 - brings numba

        scan = self.scan
        middle_mm = sum(self.body.z_range_mm) / 2
        grid = RasterGrid(scan.raster_px, RASTER_MM)
        amounts = self.body.slab(middle_mm + z_mm, thickness_mm, grid)
        if not scan.mode.has_surroundings:
            return self.scanner.paths(amounts, RASTER_MM)
        around = _surroundings(self.physics, scan.body, scan.mode, scan.raster_px)
        return self.scanner.paths(beside(amounts, around), WIDE_RASTER_MM)


def _loads(acquired: Any) -> dict[float, float]:
    return {kvp: exposure.mas for kvp, exposure in acquired.exposures.items()}


@lru_cache(maxsize=1)
def _surroundings(
    physics: Physics, subject: Subject, mode: ScanMode, raster_px: int
) -> Float32[np.ndarray, "2 rows columns"]:
    """Table and arms around a body, the same at every z."""
    from cvsct.simulation.phantom.phantom import RasterGrid  # noqa: PLC0415 - brings numba

    body = _body(physics, subject)
    places = np.linspace(*body.z_range_mm, OUTLINE_SLICES)
    grid = RasterGrid(OUTLINE_PX, RASTER_MM)
    filled = np.any([body.slab(z, 1.0, grid).any(axis=0) for z in places], axis=0)
    outline = BodyOutline.of(filled, RASTER_MM)
    wide_px = round(raster_px * WIDE_RASTER_MM / RASTER_MM)
    return Surroundings(outline, mode.table, mode.arms).amounts(wide_px, WIDE_RASTER_MM)


def _key(series: Series) -> tuple[float, str, str]:
    return series.kvp, series.kernel, series.reconstruction


def _volume(
    scan: Scan, i: int, body: Phantom, series: Series, hu: Float[np.ndarray, "rows columns"]
) -> CTVolume:
    """One slice in the patient's coordinates, which are the body's.

    The grid's shift is left out: that is what makes it misregistration.
    """
    pixel_mm = scan.fov_mm / scan.matrix_px
    first_mm = -scan.fov_mm / 2 + pixel_mm / 2
    definition = definition_of(scan.scanner)
    return CTVolume(
        hu=hu[None].astype(np.float32),
        geometry=Geometry(
            positions_mm=np.array([[first_mm, first_mm, _z_mm(scan, i, body)]]),
            row_direction=(1.0, 0.0, 0.0),
            column_direction=(0.0, 1.0, 0.0),
            pixel_mm=(pixel_mm, pixel_mm),
            thickness_mm=scan.thickness_mm,
        ),
        acquisition=Acquisition(
            definition.manufacturer, definition.model, series.kernel, series.kvp
        ),
    )


def _z_mm(scan: Scan, i: int, body: Phantom) -> float:
    return sum(body.z_range_mm) / 2 + scan.z_mm(i)


@lru_cache(maxsize=2)
def _scanner(physics: Physics, name: str) -> Scanner:
    return physics.scanner(definition_of(name))


@lru_cache(maxsize=1)
def _body(physics: Physics, subject: Subject) -> Phantom:
    return physics.body(subject)


@lru_cache
def definition_of(name: str) -> ScannerDefinition:
    """A scanner's definition, read once."""
    return load_definition(name)
