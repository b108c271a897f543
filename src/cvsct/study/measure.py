"""Profiles of single series, measured once and kept in the study's folder.

Profiles add up, so that the profile of any group of series is the sum of theirs: groups can be
merged, split and edited, and patients added, without measuring a scan again.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import operator
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import CvsctError, ProfileError, StoppedError, TrainingError
from cvsct.core.files import config_hash, write_atomic
from cvsct.core.moments import mean_value
from cvsct.core.progress import Progress
from cvsct.core.slice_average import is_thickness
from cvsct.core.volume import CTVolume, ScanFacts
from cvsct.core.workers import work_through
from cvsct.io.read import read_series
from cvsct.io.resample import resample_volume
from cvsct.methods.spectrum.soft_tissue_noise import SoftTissue
from cvsct.methods.spectrum.texture import in_noise_band
from cvsct.profile.file import MAX_BYTES, parse_profile, profile_bytes
from cvsct.profile.profile import ScannerProfile, measure_profile
from cvsct.study.series import StudySeries

SLICES_PER_SERIES = 24
"""Most slices of a series that its profile is measured of."""

MEASURES = 1
"""Version of what is measured; a higher one measures every series again."""


@dataclass(frozen=True)
class MeasureItem:
    """One series to measure.

    Args:
        series: the series.
        thickness_mm: slice thickness to average to first; 0 for its own.
        path: file of its profile.
    """

    series: StudySeries
    thickness_mm: float
    path: Path


def measure_item(series: StudySeries, thickness_mm: float, folder: Path) -> MeasureItem:
    """The item of a series; its file's name tells all that its profile depends on."""
    own = series.thickness_mm
    to = thickness_mm if thickness_mm and own and not is_thickness(own, thickness_mm) else 0.0
    about = {
        "files": series.record.stamp, "to_mm": to, "slices": SLICES_PER_SERIES,
        "acquisition": str(series.acquisition), "version": MEASURES,
    }  # fmt: skip
    name = f"{series.key}-{config_hash(about)[:8]}.profile.gz"
    return MeasureItem(series, to, folder / name)


class ProfileMeter:
    """Measures one series after the other; a worker's function."""

    def __call__(self, item: MeasureItem) -> Generator[int, None, None]:
        """Measure a series and write its profile.

        Raises:
            CvsctError: if it cannot be read, resampled or measured.
        """
        volume = read_series(item.series.files)
        volume = replace(volume, acquisition=item.series.acquisition)
        if item.thickness_mm:
            volume = resample_volume(volume, item.thickness_mm)
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


def measure_all(items: Sequence[MeasureItem], workers: int, progress: Progress) -> dict[str, str]:
    """Measure all series whose profiles are not there yet.

    Returns:
        Reason of each series that could not be measured, by its key.

    Raises:
        CvsctError: if every series would fail, as on a full disk.
        StoppedError: on Ctrl-C; profiles that are written are kept.
    """
    waiting = [item for item in items if not item.path.exists()]
    done, failed = len(items) - len(waiting), dict[str, str]()
    progress("measuring", done, len(items))
    if not waiting:
        return failed
    waiting[0].path.parent.mkdir(parents=True, exist_ok=True)
    try:
        reports = work_through(waiting, ProfileMeter(), workers, lambda item: item.path.name)
        with contextlib.closing(reports):
            for report in reports:
                if report.kind == "fatal":
                    raise CvsctError(f"{report.message}; the same command then goes on")
                if report.kind == "step":
                    continue
                if report.kind != "done":
                    failed[report.item.series.key] = report.message
                done += 1
                progress("measuring", done, len(items))
    except KeyboardInterrupt:
        raise StoppedError(
            f"stopped, {done} of {len(items)} series are measured; the same command goes on"
        ) from None
    return failed


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
