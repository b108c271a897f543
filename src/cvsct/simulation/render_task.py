"""A piece of a scan made slice by slice: body, scanner, file.

Every slice is independent of all others: its noise comes from a random stream named after the
scan, the slice and the tube voltage. So a scan has the same bytes however it is cut into pieces,
and a slice whose files are there already need not be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cvsct import __version__
from cvsct.core.errors import GeometryError, MissingExtraError
from cvsct.core.files import config_hash
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Acquisition, CTVolume, Geometry, SimulatedStudy
from cvsct.simulation.benchmark import FBP, Scan, Series, Subject
from cvsct.simulation.ground_truth import HasNodules, write_body
from cvsct.simulation.physics.definition import ScannerProfile, load_profile

RASTER_MM = 400.0
"""Side of the square that is projected; no body is wider."""
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

    def reconstructed(self, *about: Any, **more: Any) -> dict[tuple[float, str, str], np.ndarray]:
        """HU by tube voltage, kernel and reconstruction."""


def _new_body(subject: Subject) -> Phantom:
    from cvsct.simulation.phantom import phantom  # noqa: PLC0415 - brings numba, which is an extra

    if subject.kind == "lungman":
        return phantom.lungman(subject.seed, parenchyma=subject.parenchyma)
    return phantom.patient(subject.seed)


def _new_scanner(profile: ScannerProfile) -> Scanner:
    from cvsct.simulation.physics.scan import VirtualScanner  # noqa: PLC0415 - brings numba

    return VirtualScanner(profile)


@dataclass(frozen=True)
class Physics:
    """What makes bodies and scanners; functions by name, so that worker processes find them."""

    body: Callable[[Subject], Phantom] = _new_body
    scanner: Callable[[ScannerProfile], Scanner] = _new_scanner


REAL = Physics()


def load_simulator() -> None:
    """Import what the physics needs, before anything is written.

    Raises:
        MissingExtraError: if a library of the extra `simulate` is not installed.
    """
    try:
        from cvsct.simulation.phantom import phantom  # noqa: F401, PLC0415
        from cvsct.simulation.physics import scan  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"simulate needs {error.name}, which is not installed; "
            "install it with: pip install 'cvsct[simulate]'"
        ) from error


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
        for i in piece.indices:
            images = _images(scan, i, body, scanner)
            for series, study in studies.items():
                volume = _volume(scan, i, body, series, images[_key(series)])
                self.write(volume, hidden(self.out, series), study, i + 1)
            yield len(studies)


def hidden(out: Path, series: Series) -> Path:
    """Where a series' slices gather until it is complete."""
    folder = out / series.folder
    return folder.with_name(f".{folder.name}.partial")


def study_of(scan: Scan, series: Series) -> SimulatedStudy:
    """What the headers of a series say of its acquisition."""
    profile = profile_of(scan.scanner)
    geometry, protocol = profile.geometry, profile.protocol
    of_scan, of_scanner = asdict(scan), profile.model_dump(mode="json")
    del of_scan["reconstructions"]  # what else is made of the readings shapes no pixel of this one
    offered = of_scanner.pop("reconstruction")
    about = {"cvsct": __version__, "scan": of_scan, "profile": of_scanner}
    if series.reconstruction != FBP:
        about["reconstruction"] = [series.reconstruction, offered]
    return SimulatedStudy(
        body=scan.body.name,
        identity=config_hash(about),
        series_number=series.number,
        mas=series.mas,
        rotation_s=protocol.rotation_s,
        ctdi_vol_mgy=protocol.ctdi_vol_mgy_per_100mas[series.kvp] * series.mas / 100,
        source_isocentre_mm=geometry.source_isocentre_mm,
        source_detector_mm=geometry.source_detector_mm,
        collection_diameter_mm=2
        * geometry.source_isocentre_mm
        * float(np.sin(geometry.fan_angle_rad / 2)),
        focal_spot_mm=profile.tube.focal_spot_mm,
        filter_type="BODY",
        reconstruction=profile.told_reconstruction(series.reconstruction),
    )


def _refuse_beyond(scan: Scan, body: Phantom) -> None:
    low, high = body.z_range_mm
    reach = scan.thickness_mm / 2
    first, last = _z_mm(scan, 0, body) - reach, _z_mm(scan, scan.slices - 1, body) + reach
    if first < low - OVERSCAN_MM or last > high + OVERSCAN_MM:
        raise GeometryError(
            f"slices from {first:.1f} to {last:.1f} mm, but this chest lies between {low:.1f} and "
            f"{high:.1f} mm, and at most {OVERSCAN_MM:g} mm more can be scanned; plan fewer slices"
        )


def _images(
    scan: Scan, i: int, body: Phantom, scanner: Scanner
) -> dict[tuple[float, str, str], Float[np.ndarray, "rows columns"]]:
    """One slice at every kVp, with every kernel, in every reconstruction."""
    from cvsct.simulation.phantom.phantom import RasterGrid  # noqa: PLC0415 - brings numba
    from cvsct.simulation.physics.scan import ImageGrid  # noqa: PLC0415

    amounts = body.slab(
        _z_mm(scan, i, body), scan.thickness_mm, RasterGrid(scan.raster_px, RASTER_MM)
    )
    return scanner.reconstructed(
        amounts,
        RASTER_MM,
        exposures=dict(zip(scan.kvps, scan.mas, strict=True)),
        kernels=scan.kernels,
        reconstructions=scan.reconstructions,
        thickness_mm=scan.thickness_mm,
        grid=ImageGrid(scan.matrix_px, scan.fov_mm, scan.shift_mm),
        rng_of=lambda kvp: random_stream(scan.noise_seed, str(scan), f"slice {i}", f"{kvp:g} kVp"),
    )


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
    profile = profile_of(scan.scanner)
    return CTVolume(
        hu=hu[None].astype(np.float32),
        geometry=Geometry(
            positions_mm=np.array([[first_mm, first_mm, _z_mm(scan, i, body)]]),
            row_direction=(1.0, 0.0, 0.0),
            column_direction=(0.0, 1.0, 0.0),
            pixel_mm=(pixel_mm, pixel_mm),
            thickness_mm=scan.thickness_mm,
        ),
        acquisition=Acquisition(profile.manufacturer, profile.model, series.kernel, series.kvp),
    )


def _z_mm(scan: Scan, i: int, body: Phantom) -> float:
    return sum(body.z_range_mm) / 2 + scan.z_mm(i)


@lru_cache(maxsize=2)
def _scanner(physics: Physics, name: str) -> Scanner:
    return physics.scanner(profile_of(name))


@lru_cache(maxsize=1)
def _body(physics: Physics, subject: Subject) -> Phantom:
    return physics.body(subject)


@lru_cache
def profile_of(name: str) -> ScannerProfile:
    """A scanner's definition, read once."""
    return load_profile(name)
