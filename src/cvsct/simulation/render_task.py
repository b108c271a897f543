"""Rendering of slices of a scan: build body and scanner, project, reconstruct, write DICOM.

A render task names some slices of a scan; worker processes take one task at a time. Every slice is
independent of all others: its noise comes from a random stream named after the scan, the slice and
the tube voltage. So a scan has the same bytes however it is divided into tasks, and a slice whose
files exist need not be rendered again.
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
from cvsct.simulation.benchmark import FBP, STUDY, PlannedSeries, Scan, ScanMode, Subject
from cvsct.simulation.ground_truth import HasNodules, write_body
from cvsct.simulation.phantom.surroundings import BodyOutline, Surroundings, beside
from cvsct.simulation.physics.definition import ScannerDefinition, load_definition

if TYPE_CHECKING:
    from cvsct.simulation.physics.helical import HelicalReader, SliceSensitivity

RASTER_MM = 400.0
"""Side of the square raster that is projected; no body is wider."""
WIDE_RASTER_MM = 500.0
"""Side of the raster of a scan with a table or with arms along the body."""
OUTLINE_SLICES, OUTLINE_PX = 7, 128
"""Number of slices from which the outline of a body is taken, and their side in pixels."""
PATH_CACHE_BYTES = 192 * 2**20
"""Size limit of a process's cache of projections. A repeat scan differs in its noise alone, so it
uses the same projections."""
OVERSCAN_MM = 20.0
"""Distance by which a stack may extend beyond the range of a chest scan; the body goes on there."""

SeriesWriter = Callable[[CTVolume, Path, SimulatedStudy, int], object]
"""Function that writes slices into a folder, given the number of the first slice as its last
argument. It must be picklable."""


@runtime_checkable
class PhantomProtocol(HasNodules, Protocol):
    """Interface of a body that can be rendered, which `phantom.Phantom` implements."""

    def slab(self, z_mm: float, thickness_mm: float, grid: Any) -> np.ndarray:
        """Amounts of the basis materials on a grid, averaged over a slab of the given thickness."""


@runtime_checkable
class ScannerProtocol(Protocol):
    """Interface of a virtual scanner, which `scan.VirtualScanner` implements."""

    def paths(self, amounts: np.ndarray, extent_mm: float) -> tuple[np.ndarray, ...]:
        """Path lengths of every ray through the basis materials."""

    def acquire(self, paths: Sequence[np.ndarray], *about: Any, **more: Any) -> Any:
        """Simulate the readings of a rotation; see `scan.AcquiredRotation`."""

    def reconstruct(
        self,
        water: Mapping[float, Any],
        kernels: Sequence[str],
        grid: Any,
        reconstructions: Sequence[str],
    ) -> dict[tuple[float, str, str], np.ndarray]:
        """Images in HU, keyed by tube voltage, kernel and reconstruction."""


def build_phantom(subject: Subject) -> PhantomProtocol:
    """Build the phantom of a body."""
    from cvsct.simulation.phantom import phantom  # noqa: PLC0415 - brings numba, which is an extra

    if subject.kind == "lungman":
        return phantom.lungman(subject.seed, parenchyma=subject.parenchyma)
    return phantom.patient(subject.seed, subject.lesion, subject.emphysema)


def build_scanner(definition: ScannerDefinition) -> ScannerProtocol:
    """Build the virtual scanner of a definition."""
    from cvsct.simulation.physics.scan import VirtualScanner  # noqa: PLC0415 - brings numba

    return VirtualScanner(definition)


@dataclass(frozen=True)
class Builders:
    """Functions that build phantoms and scanners, which tests replace by fast ones.

    They are functions of a module, so that worker processes find them by name.

    Args:
        phantom: builds the phantom of a body.
        scanner: builds the virtual scanner of a definition.
    """

    phantom: Callable[[Subject], PhantomProtocol] = build_phantom
    scanner: Callable[[ScannerDefinition], ScannerProtocol] = build_scanner


DEFAULT_BUILDERS = Builders()


@dataclass(frozen=True)
class RenderTask:
    """Some slices of a scan, to be rendered by one worker.

    Args:
        scan: the scan.
        indices: indices of the slices in the scan.
    """

    scan: Scan
    indices: tuple[int, ...]


@dataclass(frozen=True)
class SliceRenderer:
    """Function that carries out render tasks; picklable, to be sent to worker processes.

    Args:
        out: folder of the benchmark.
        write: function that writes a slice as DICOM.
        builders: functions that build phantoms and scanners.
    """

    out: Path
    write: SeriesWriter
    builders: Builders = DEFAULT_BUILDERS

    def __call__(self, task: RenderTask) -> Iterator[int]:
        """Render the slices of a task into the hidden folders of their series.

        Yields:
            Number of images written, after each slice. Each file is written atomically.

        Raises:
            GeometryError: if the scan extends too far beyond the body's range.
        """
        scan = task.scan
        scanner = _scanner(self.builders, scan.scanner)
        phantom = _phantom(self.builders, scan.body)
        write_body(self.out, scan.body, phantom)
        _check_z_range(scan, phantom)
        studies = {series: study_of(scan, series) for series in scan.series()}
        renderer = _ScanRenderer(scan, phantom, scanner, self.builders)
        for i in task.indices:
            images, tube_loads = renderer.images(i)
            for series, study in studies.items():
                slice_study = _with_tube_load(study, scan, series.kvp, tube_loads[series.kvp])
                volume = _volume(scan, i, phantom, series, images[_image_key(series)])
                self.write(volume, partial_folder(self.out, series), slice_study, i + 1)
            yield len(studies)


def partial_folder(out: Path, series: PlannedSeries) -> Path:
    """Hidden folder that holds the slices of a series until the series is complete."""
    folder = out / series.folder
    return folder.with_name(f".{folder.name}.partial")


def study_of(scan: Scan, series: PlannedSeries) -> SimulatedStudy:
    """Description of the acquisition of a series, for its DICOM headers.

    The identity, from which UIDs follow, is a hash of everything that shapes the pixels.
    """
    definition = definition_of(scan.scanner)
    geometry, protocol = definition.geometry, definition.protocol
    scan_record = scan.record()
    scan_record.pop("reconstructions", None)  # the other reconstructions shape no pixel of this
    scanner_record = definition_record(scan, (series.reconstruction,))
    offered = scanner_record.pop("reconstruction", None)
    record = {"cvsct": __version__, "scan": scan_record, "profile": scanner_record}
    if series.reconstruction != FBP:
        record["reconstruction"] = [series.reconstruction, offered]
    helical = definition.helical if scan.mode.helical else None
    return SimulatedStudy(
        body=scan.body.name,
        identity=config_hash(record),
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
        reconstruction=definition.reconstruction_label(series.reconstruction),
        pitch=helical.pitch if helical else None,
        modulation="XYZ_EC" if scan.mode.tube_current else "NONE",
        spacing_mm=scan.spacing_mm,
        institution=f"Virtual hospital {scan.side}"
        if scan.part == STUDY
        else "cvsct virtual scanner",
    )


def definition_record(scan: Scan, reconstructions: Sequence[str]) -> dict[str, Any]:
    """Values of a scanner's definition that shape a scan's images.

    Sections that the scan's mode and the reconstructions do not use are left out.
    """
    is_used = {
        "tube_current": scan.mode.tube_current,
        "helical": scan.mode.helical,
        "reconstruction": any(name != FBP for name in reconstructions),
    }
    record = definition_of(scan.scanner).record()
    return {name: value for name, value in record.items() if is_used.get(name, True)}


def _ctdi_vol_mgy(scan: Scan, kvp: float, mas: float) -> float:
    """CTDIvol of a rotation with this tube load; of a helical scan, divided by its pitch."""
    definition = definition_of(scan.scanner)
    dose_mgy = definition.protocol.ctdi_vol_mgy_per_100mas[kvp] * mas / 100
    return (
        dose_mgy / definition.helical.pitch
        if scan.mode.helical and definition.helical
        else dose_mgy
    )


def _with_tube_load(study: SimulatedStudy, scan: Scan, kvp: float, mas: float) -> SimulatedStudy:
    """Set the tube load of one slice, and its CTDIvol, if the scan modulates the tube current."""
    if not scan.mode.tube_current:
        return study
    return replace(study, mas=mas, ctdi_vol_mgy=_ctdi_vol_mgy(scan, kvp, mas))


def _check_z_range(scan: Scan, phantom: PhantomProtocol) -> None:
    """Raise GeometryError if the scan extends too far beyond the body's range."""
    low, high = phantom.z_range_mm
    half = scan.thickness_mm / 2
    first, last = _z_mm(scan, 0, phantom) - half, _z_mm(scan, scan.slices - 1, phantom) + half
    if first < low - OVERSCAN_MM or last > high + OVERSCAN_MM:
        raise GeometryError(
            f"slices from {first:.1f} to {last:.1f} mm, but this chest lies between {low:.1f} and "
            f"{high:.1f} mm, and at most {OVERSCAN_MM:g} mm more can be scanned; plan fewer slices"
        )


class _PathCache:
    """Cache of the most recently used projections, limited to `PATH_CACHE_BYTES`."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[Any, ...], tuple[np.ndarray, ...]] = OrderedDict()

    def get(
        self, key: tuple[Any, ...], compute: Callable[[], tuple[np.ndarray, ...]]
    ) -> tuple[np.ndarray, ...]:
        """Return the projections stored under a key; compute and store them if there are none."""
        if key not in self._entries:
            self._entries[key] = compute()
        self._entries.move_to_end(key)
        while len(self._entries) > 1 and self._n_bytes() > PATH_CACHE_BYTES:
            self._entries.popitem(last=False)
        return self._entries[key]

    def _n_bytes(self) -> int:
        return sum(array.nbytes for paths in self._entries.values() for array in paths)


_PATH_CACHE = _PathCache()


@dataclass(frozen=True)
class _ScanRenderer:
    """Renderer of the slices of one scan, each at every tube voltage, kernel and reconstruction."""

    scan: Scan
    phantom: PhantomProtocol
    scanner: ScannerProtocol
    builders: Builders
    _loads_mas: dict[int, dict[float, float]] = field(default_factory=dict)
    """Tube loads of the readings of a helical scan, by reading and tube voltage."""

    def images(
        self, i: int
    ) -> tuple[dict[tuple[float, str, str], Float[np.ndarray, "rows columns"]], dict[float, float]]:
        """Render one slice.

        Returns:
            Images in HU, keyed by tube voltage, kernel and reconstruction; and tube loads in mAs by
            tube voltage.
        """
        from cvsct.simulation.physics.scan import ImageGrid  # noqa: PLC0415 - brings numba

        scan = self.scan
        if scan.mode.helical:
            z_mm = scan.z_mm(i)
            water = self._helical.slice(z_mm)
            weights = self._sensitivity.weights(z_mm)
            loads_mas = {
                kvp: sum(weight * self._loads_mas[k][kvp] for k, weight in weights.items())
                for kvp in scan.kvps
            }
        else:
            acquired = self._acquire(
                scan.z_mm(i), scan.thickness_mm, scan.thickness_mm, scan.stream, f"slice {i}"
            )
            water, loads_mas = acquired.water, _loads_mas(acquired)
        grid = ImageGrid(scan.matrix_px, scan.fov_mm, scan.shift_mm)
        images = self.scanner.reconstruct(water, scan.kernels, grid, scan.reconstructions)
        return images, loads_mas

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
        """Simulate one reading of the helix by its number.

        Its random stream does not name the slice thickness, so that thin and thick slices of a
        body come from the same readings.
        """
        sensitivity = self._sensitivity
        acquired = self._acquire(
            number * sensitivity.sample_mm, sensitivity.row_mm, sensitivity.photons_mm,
            self.scan.acquisition or f"{self.scan.role}/{self.scan.body.name}", f"reading {number}",
        )  # fmt: skip
        self._loads_mas[number] = _loads_mas(acquired)
        water: dict[float, Any] = acquired.water
        return water

    def _acquire(self, z_mm: float, thickness_mm: float, photons_mm: float, *stream: str) -> Any:
        """Simulate the readings of one rotation.

        Args:
            z_mm: position of the rotation, relative to the middle of the body's z range.
            thickness_mm: thickness of the slab whose mean is projected.
            photons_mm: thickness of an axial slice that gets as many photons.
            stream: names of the random stream.
        """
        scan = self.scan
        key = (
            self.builders, scan.scanner, scan.body, z_mm, thickness_mm, scan.raster_px,
            scan.mode.table, scan.mode.arms,
        )  # fmt: skip
        paths = _PATH_CACHE.get(key, lambda: self._paths(z_mm, thickness_mm))
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
        """Ratio of noise variances: slice of the noise index's thickness over a single reading."""
        if not (self.scan.mode.helical and self.scan.mode.tube_current):
            return 1.0
        law = definition_of(self.scan.scanner).tube_current
        thickness_mm = law.noise_index_thickness_mm if law else None
        if thickness_mm is None:
            return self._sensitivity.variance_share()
        return replace(self._sensitivity, thickness_mm=thickness_mm).variance_share()

    def _paths(self, z_mm: float, thickness_mm: float) -> tuple[np.ndarray, ...]:
        """Project a slab of the body, with table and arms if the scan has them."""
        from cvsct.simulation.phantom.phantom import RasterGrid  # noqa: PLC0415 - brings numba

        scan = self.scan
        middle_mm = sum(self.phantom.z_range_mm) / 2
        grid = RasterGrid(scan.raster_px, RASTER_MM)
        amounts = self.phantom.slab(middle_mm + z_mm, thickness_mm, grid)
        if not scan.mode.has_surroundings:
            return self.scanner.paths(amounts, RASTER_MM)
        surroundings = _surroundings(self.builders, scan.body, scan.mode, scan.raster_px)
        return self.scanner.paths(beside(amounts, surroundings), WIDE_RASTER_MM)


def _loads_mas(acquired: Any) -> dict[float, float]:
    """Tube loads of an acquisition in mAs, by tube voltage."""
    return {kvp: exposure.mas for kvp, exposure in acquired.exposures.items()}


@lru_cache(maxsize=1)
def _surroundings(
    builders: Builders, subject: Subject, mode: ScanMode, raster_px: int
) -> Float32[np.ndarray, "2 rows columns"]:
    """Amounts of the basis materials of table and arms around a body, the same at every z."""
    from cvsct.simulation.phantom.phantom import RasterGrid  # noqa: PLC0415 - brings numba

    phantom = _phantom(builders, subject)
    positions_mm = np.linspace(*phantom.z_range_mm, OUTLINE_SLICES)
    grid = RasterGrid(OUTLINE_PX, RASTER_MM)
    filled = np.any([phantom.slab(z, 1.0, grid).any(axis=0) for z in positions_mm], axis=0)
    outline = BodyOutline.of(filled, RASTER_MM)
    wide_px = round(raster_px * WIDE_RASTER_MM / RASTER_MM)
    return Surroundings(outline, mode.table, mode.arms).amounts(wide_px, WIDE_RASTER_MM)


def _image_key(series: PlannedSeries) -> tuple[float, str, str]:
    """Key of a series' images in the results of a scanner."""
    return series.kvp, series.kernel, series.reconstruction


def slice_geometry(scan: Scan, z_mm: Sequence[float]) -> Geometry:
    """Geometry of slices of a scan at these positions, in patient coordinates.

    It leaves out the shift of the image grid, so that the shift acts as misregistration.
    """
    pixel_mm = scan.fov_mm / scan.matrix_px
    first_mm = -scan.fov_mm / 2 + pixel_mm / 2
    return Geometry(
        positions_mm=np.array([[first_mm, first_mm, z] for z in z_mm]),
        row_direction=(1.0, 0.0, 0.0),
        column_direction=(0.0, 1.0, 0.0),
        pixel_mm=(pixel_mm, pixel_mm),
        thickness_mm=scan.thickness_mm,
    )


def _volume(
    scan: Scan,
    i: int,
    phantom: PhantomProtocol,
    series: PlannedSeries,
    hu: Float[np.ndarray, "rows columns"],
) -> CTVolume:
    """Volume of one slice in patient coordinates, which are those of the body."""
    definition = definition_of(scan.scanner)
    return CTVolume(
        hu=hu[None].astype(np.float32),
        geometry=slice_geometry(scan, [_z_mm(scan, i, phantom)]),
        acquisition=Acquisition(
            definition.manufacturer, definition.model, series.kernel, series.kvp
        ),
    )


def _z_mm(scan: Scan, i: int, phantom: PhantomProtocol) -> float:
    """Position of the centre of slice `i` in patient coordinates."""
    return sum(phantom.z_range_mm) / 2 + scan.z_mm(i)


@lru_cache(maxsize=2)
def _scanner(builders: Builders, name: str) -> ScannerProtocol:
    return builders.scanner(definition_of(name))


@lru_cache(maxsize=1)
def _phantom(builders: Builders, subject: Subject) -> PhantomProtocol:
    return builders.phantom(subject)


@lru_cache
def definition_of(name: str) -> ScannerDefinition:
    """Definition of a scanner, read from its file once per process."""
    return load_definition(name)
