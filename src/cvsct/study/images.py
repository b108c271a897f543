"""Images of a study by group, before and after: noise, sharpness and lung density.

Noise and sharpness are those of a fit from one group to the reference, at equal attenuation and
tissue, so that groups of other patients compare.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cvsct.core.files import config_hash, write_json
from cvsct.core.progress import Progress
from cvsct.evaluation.image.densitometry import lung_density
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.read import read_series
from cvsct.profile.figure import noise_spectrum
from cvsct.profile.profile import ScannerProfile
from cvsct.study.groups import Difference, difference
from cvsct.study.jobs import Where, work_on_all
from cvsct.study.measure import (
    PROFILES,
    MeasuredProfiles,
    file_stats,
    measure_all,
    measure_item,
    series_key,
)
from cvsct.study.plan import PlanRow, StudyPlan

BEFORE, AFTER = "before", "after"
LUNG_SLICES = 24
"""Most slices in which the lungs of a series are measured."""


@dataclass(frozen=True)
class GroupImages:
    """Images of a group beside those of the reference.

    Args:
        group: name of the group.
        to_reference: noise and sharpness of the group over the reference's, before and after.
        spectra: frequencies in cycles/mm, and log power of noise in HU² mm².
        laa950_percent, perc15_hu: lung density of each series, before and after.
    """

    group: str
    to_reference: Mapping[str, Difference]
    spectra: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]] = field(
        repr=False
    )
    laa950_percent: Mapping[str, tuple[float, ...]]
    perc15_hu: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class LungItem:
    """A series whose lungs are measured.

    Args:
        key: name of the series.
        files: the series.
        path: file of the figures.
    """

    key: str
    files: SeriesFiles = field(repr=False)
    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """What a worker must see."""
        return self.files.files[0].absolute(), self.path.parent


def measure_lungs(item: LungItem) -> Generator[int, None, None]:
    """Measure the lung density of a series; a worker's function."""
    density = lung_density(read_series(item.files), LUNG_SLICES)
    write_json(item.path, density.to_json(), private=True)
    yield 1


def _lung_item(files: SeriesFiles, study: Path) -> LungItem:
    about = {"files": file_stats(files), "slices": LUNG_SLICES}
    key = series_key(files)
    return LungItem(key, files, study / PROFILES / "lungs" / f"{key}-{config_hash(about)[:8]}.json")


def measure_images(
    plan: StudyPlan,
    series: Mapping[str, Sequence[tuple[PlanRow, SeriesFiles, SeriesFiles]]],
    where: Where,
    progress: Progress,
) -> list[GroupImages]:
    """Measure the images of every group, before and after harmonization.

    Args:
        series: of each group, the series at the reference's thickness and harmonized; of the
            reference both are the same.
    """
    stages = {BEFORE: 0, AFTER: 1}
    profile_items, lung_items = {}, {}
    for group, members in series.items():
        for row, *files in members:
            for stage, number in stages.items():
                each = files[number]
                key = group, stage, row.series_uid
                profile_items[key] = measure_item(each, row.acquisition, 0.0, 0.0, plan.folder)
                lung_items[key] = _lung_item(each, plan.folder)
    unique = {item.path: item for item in profile_items.values()}
    measure_all(list(unique.values()), where, progress)
    lungs = {item.path: item for item in lung_items.values() if not item.path.exists()}
    if lungs:
        next(iter(lungs)).parent.mkdir(parents=True, exist_ok=True)
    work_on_all("lungs", list(lungs.values()), measure_lungs, where, progress)
    profiles = {}
    for group, members in series.items():
        for stage in stages:
            items = [profile_items[group, stage, row.series_uid] for row, *_ in members]
            there = {item.key: item.path for item in items if item.path.exists()}
            if there:
                profiles[group, stage] = MeasuredProfiles(there).total(there)
    reference = profiles.get((plan.reference, BEFORE))
    if reference is None:
        return []
    return [
        GroupImages(
            group,
            {stage: difference(reference, profiles[group, stage])
             for stage in stages if (group, stage) in profiles},
            {stage: curve for stage in stages
             if (curve := _spectrum(profiles.get((group, stage)))) is not None},
            _figures(series[group], lung_items, group, "laa950_percent"),
            _figures(series[group], lung_items, group, "perc15_hu"),
        )
        for group in series
    ]  # fmt: skip


def _spectrum(
    profile: ScannerProfile | None,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]] | None:
    """Frequencies and log power of noise."""
    power = None if profile is None else noise_spectrum(profile)
    if profile is None or power is None:
        return None
    return profile.texture.frequencies_per_mm, power


def _figures(
    members: Sequence[tuple[PlanRow, SeriesFiles, SeriesFiles]],
    items: Mapping[tuple[str, str, str], LungItem],
    group: str,
    name: str,
) -> dict[str, tuple[float, ...]]:
    figures: dict[str, tuple[float, ...]] = {}
    for stage in (BEFORE, AFTER):
        values = []
        for row, *_ in members:
            path = items[group, stage, row.series_uid].path
            value = json.loads(path.read_text("utf-8")).get(name) if path.exists() else None
            if value is not None:
                values.append(float(value))
        figures[stage] = tuple(values)
    return figures


def quartiles(values: Sequence[float]) -> str:
    """Median and quartiles as text; empty of fewer than three values."""
    if len(values) < 3:
        return ""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"
