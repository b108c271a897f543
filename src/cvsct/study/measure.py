"""Profiles of single series, measured once and kept in the study's folder.

Profiles add up, so that the profile of any group of series is the sum of theirs: groups can be
merged, split and edited, and patients added, without measuring a scan again.
"""

from __future__ import annotations

import functools
import gzip
import operator
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import ProfileError, TrainingError
from cvsct.core.files import config_hash, write_atomic
from cvsct.core.moments import mean_value
from cvsct.core.progress import Progress
from cvsct.core.volume import Acquisition, CTVolume, ScanFacts
from cvsct.inference.streaming import folder_name
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.read import read_series
from cvsct.io.resample import resample_volume
from cvsct.methods.spectrum.soft_tissue_noise import SoftTissue
from cvsct.methods.spectrum.texture import in_noise_band
from cvsct.profile.file import MAX_BYTES, parse_profile, profile_bytes
from cvsct.profile.profile import ScannerProfile, measure_profile
from cvsct.study.jobs import Where, work_on_all

SLICES_PER_SERIES = 24
"""Most slices of a series that its profile is measured of."""

MEASURES = 1
"""Version of what is measured; a higher one measures every series again."""


PROFILES = "profiles"
"""Folder of profiles in the study's; those of single series lie in `series` in it."""


@dataclass(frozen=True)
class MeasureItem:
    """One series to measure.

    Args:
        key: name of the series in the study's folders.
        files: the series.
        acquisition: its scanner, kernel and tube voltage.
        own_mm: its slice thickness; 0 where unknown.
        to_mm: slice thickness to average to first; 0 for its own.
        path: file of its profile.
    """

    key: str
    files: SeriesFiles = field(repr=False)
    acquisition: Acquisition
    own_mm: float
    to_mm: float
    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """What a worker must see."""
        return self.files.files[0].absolute(), self.path.parent


def measure_item(
    files: SeriesFiles, acquisition: Acquisition, own_mm: float, to_mm: float, study: Path
) -> MeasureItem:
    """The item of a series; its file's name tells all that its profile depends on.

    Args:
        study: folder of the study.
    """
    about = {
        "files": file_stats(files),
        "own_mm": own_mm if to_mm else 0.0, "to_mm": to_mm, "slices": SLICES_PER_SERIES,
        "acquisition": str(acquisition), "version": MEASURES,
    }  # fmt: skip
    key = series_key(files)
    path = study / PROFILES / "series" / f"{key}-{config_hash(about)[:8]}.profile.gz"
    return MeasureItem(key, files, acquisition, own_mm, to_mm, path)


def file_stats(files: SeriesFiles) -> list[tuple[int, int]]:
    """Size and time of change of the files of a series, whatever their names, to tell a change."""
    stats = [file.stat() for file in files.files]
    return sorted((stat.st_size, stat.st_mtime_ns) for stat in stats)


def series_key(files: SeriesFiles) -> str:
    """Name of a series in the study's folders."""
    return folder_name(files.series_uid or f"file {files.files[0].name}")


def measure_series(item: MeasureItem) -> Generator[int, None, None]:
    """Measure a series and write its profile; a worker's function.

    Raises:
        CvsctError: if it cannot be read, resampled or measured.
    """
    volume = replace(read_series(item.files), acquisition=item.acquisition)
    if item.to_mm:
        own = replace(volume.geometry, thickness_mm=item.own_mm)
        volume = resample_volume(replace(volume, geometry=own), item.to_mm)
    profile = measure_profile(_OneScan(volume), SLICES_PER_SERIES)
    content, _ = profile_bytes(replace(profile, few_patients=True), item.path)
    write_atomic(item.path, gzip.compress(content, 6, mtime=0), private=True)
    yield 1


@dataclass(frozen=True)
class _OneScan:
    """A volume as the scans of a side."""

    volume: CTVolume

    @property
    def facts(self) -> tuple[ScanFacts, ...]:
        return (ScanFacts.of(self.volume),)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[CTVolume]:
        yield self.volume


def measure_all(
    items: Sequence[MeasureItem], where: Where, progress: Progress
) -> Mapping[str, str]:
    """Measure all series whose profiles are not there yet.

    Returns:
        Reason of each series that could not be measured, by its key.

    Raises:
        CvsctError: if every series would fail, as on a full disk.
        StoppedError: on Ctrl-C; profiles that are written are kept.
    """
    waiting = [item for item in items if not item.path.exists()]
    if waiting:
        waiting[0].path.parent.mkdir(parents=True, exist_ok=True)
    before = len(items) - len(waiting)
    return work_on_all("measuring", waiting, measure_series, where, progress, before).failed


def read_measured(path: Path) -> ScannerProfile:
    """The profile of a series.

    Raises:
        ProfileError: if it is not there, or damaged.
    """
    try:
        with gzip.open(path) as stream:
            content = stream.read(MAX_BYTES)
    except (OSError, EOFError) as error:
        raise ProfileError(
            f"{path}: no readable profile ({type(error).__name__}); delete it, and it is measured "
            "again"
        ) from None
    return parse_profile(content, path)


class MeasuredProfiles(Mapping[str, ScannerProfile]):
    """Profiles of series by their keys, each read from its file when it is asked for."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)

    def __getitem__(self, key: str) -> ScannerProfile:
        return read_measured(self._paths[key])

    def __contains__(self, key: object) -> bool:
        return key in self._paths  # without reading the profile, which the base class would

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def total(self, keys: Iterable[str]) -> ScannerProfile:
        """Profile of several series, by adding theirs, one in memory at a time."""
        return functools.reduce(operator.add, (self[key] for key in keys))


def noise_level(profile: ScannerProfile) -> float:
    """Log of noise, in HU, in the most homogeneous soft tissue, at the attenuation of water alone.

    The power of noise follows the attenuation of the body; what that leads to expect is taken off,
    so that series of thin and of stout patients compare. NaN where there is too little soft tissue.
    """
    try:
        soft = SoftTissue.of(profile.texture, "profile's")
    except TrainingError:
        return float("nan")
    part = profile.texture.by_ratio
    sums = part.weighted(soft.homogeneous)
    power: Float[np.ndarray, " n"] = mean_value(sums, part.form(value=1.0))
    expected: Float[np.ndarray, " n"] = mean_value(sums, part.form(noise=1.0))
    band = in_noise_band(profile.texture.frequencies_per_mm)
    if not band.any():
        return float("nan")
    return float(0.5 * (power - expected)[band].mean())
