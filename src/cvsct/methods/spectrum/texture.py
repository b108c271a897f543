"""Texture statistics of one scanner: all that a fit needs of its scans, as sums in fixed strata.

The strata below belong to the format of profiles (docs/reference/profiles.md): that their edges
never move is what makes the sums of two groups of scans add up. What a stratum does not tell apart,
its covariates do, for sums of products hold a regression whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Float, Int

from cvsct.core.masks import FAT, LUNG, SOFT_TISSUE, UNENHANCED_ORGANS, HURange
from cvsct.core.moments import Moments, numbered
from cvsct.core.progress import Progress, silent
from cvsct.core.spectra import mean_over_patches
from cvsct.core.volume import CTVolume, ScanFacts, Scans, facts_of
from cvsct.methods.spectrum.hu_offset import tissue_mode_hu
from cvsct.methods.spectrum.patches import Patches, PatchKind, domain_patches

HOMOGENEOUS_PATCH_MM = 20.0
"""Side of the patches of soft tissue in which noise is measured."""

NOISE_BAND_PER_MM = (0.45, 0.75)
"""Frequencies at which noise is strong and anatomy weak on any kernel."""

ENERGY_EDGES = np.arange(3.0, 18.0)
"""Edges of the strata of bodies by low-frequency log power."""

TISSUE_EDGES_HU = (LUNG.high_hu, SOFT_TISSUE.low_hu)
"""Edges of the strata of bodies by mean CT number: lung, edges of tissues, soft tissue and bone."""

ROUGHNESS_EDGES = np.arange(-1.5, 5.01, 0.25)
"""Edges of the strata of soft tissue by log roughness in HU."""

RATIO_EDGES = np.arange(-5.0, 5.01, 0.25)
"""Edges of the strata of soft tissue by log roughness over the root of noise power."""

LEAST_ROUGHNESS_HU = 1e-3
MIN_IN_SLICE = 4
"""Fewest patches of soft tissue in a slice whose tube load counts."""

SOFT_COVARIATES = ("noise", "slice_noise", "radius", "hu", "roughness")


N_TISSUES = len(TISSUE_EDGES_HU) + 1
N_BODY_STRATA = (len(ENERGY_EDGES) + 1) * N_TISSUES
N_RATIO, N_ROUGHNESS = len(RATIO_EDGES) + 1, len(ROUGHNESS_EDGES) + 1


def in_noise_band(frequencies_per_mm: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether each frequency lies in `NOISE_BAND_PER_MM`."""
    low, high = NOISE_BAND_PER_MM
    inside: Bool[np.ndarray, " n"] = (frequencies_per_mm >= low) & (frequencies_per_mm <= high)
    return inside


@dataclass(frozen=True)
class TextureLayout:
    """What the statistics of both sides of a fit must have in common.

    Args:
        patch_mm: side of the patches of bodies.
        step_per_mm: distance between frequencies.
        low_per_mm: highest frequency at which kernels are taken to agree.
    """

    patch_mm: float = 40.0
    step_per_mm: float = 0.025
    low_per_mm: float = 0.075

    @property
    def n_low(self) -> int:
        """Number of frequencies above zero at which kernels are taken to agree."""
        return int((self.low_per_mm + 1e-9) / self.step_per_mm)

    @property
    def body_covariates(self) -> tuple[str, ...]:
        """Names of what else no kernel changes, and of expected noise."""
        shape = tuple(f"shape_{i}" for i in range(1, self.n_low))
        return ("hu", "hu_squared", "energy", *shape, "noise", "slice_noise")


@dataclass(frozen=True)
class Texture:
    """Texture statistics of one scanner.

    Args:
        layout: patches and frequencies.
        body: log power of patches of the body, by low-frequency log power and mean CT number.
        by_ratio: of soft tissue, by roughness over noise.
        by_roughness: of soft tissue, by roughness.
        within_slices: mean log power in `NOISE_BAND_PER_MM`, by roughness; all terms but 1 less
            their means over the patches of the same slice and stratum.
        slices: the same power by roughness over noise, of those means, weighed by their patches.
        load: log tube load of slices of soft tissue, with their expected noise; in a stratum of
            its own, as 0, where the header does not tell it.
        contrast: patches of soft tissue in strata by contrast agent: given, none, unknown.
        fat_mode, soft_mode: most frequent CT number of both tissues in each patient, with the mean
            expected noise as a measure of size.
    """

    layout: TextureLayout
    body: Moments
    by_ratio: Moments
    by_roughness: Moments
    within_slices: Moments
    slices: Moments
    load: Moments
    contrast: Moments
    fat_mode: Moments
    soft_mode: Moments

    @property
    def frequencies_per_mm(self) -> Float[np.ndarray, " n"]:
        """Frequencies of the power, in cycles/mm."""
        return self.layout.step_per_mm * np.arange(self.body.sums.shape[1])

    @property
    def body_patches(self) -> Float[np.ndarray, "energies tissues"]:
        """Patches of bodies by low-frequency power and tissue."""
        patches: Float[np.ndarray, "energies tissues"] = self.body.patches.reshape(-1, N_TISSUES)
        return patches

    @property
    def n_body(self) -> int:
        """Patches of bodies."""
        return round(float(self.body.patches.sum()))

    @property
    def n_soft(self) -> int:
        """Patches of soft tissue."""
        return round(float(self.by_ratio.patches.sum()))

    def moments(self) -> dict[str, Moments]:
        """All sums over patches, slices and patients, by name."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in parts.items() if isinstance(part, Moments)}

    def __add__(self, other: Texture) -> Texture:
        """Statistics of the scans of both, none of whose patients may be in the other.

        Raises:
            ValueError: if their layouts differ.
        """
        if self.layout != other.layout:
            raise ValueError(f"{self.layout} and {other.layout} do not add up")
        others = other.moments()
        return Texture(
            layout=self.layout,
            **{name: part + others[name] for name, part in self.moments().items()},
        )

    def up_to(self, n: int) -> Texture:
        """Statistics at the first n frequencies."""
        return Texture(
            **{field.name: getattr(self, field.name) for field in fields(self)}
            | {name: getattr(self, name).to(n) for name in ("body", "by_ratio", "by_roughness")}
        )


@dataclass(frozen=True)
class MeasuredPatches:
    """Patches of the scans of one side, with the patient of each.

    Args:
        body, soft: patches of bodies, and of soft tissue.
        body_patient, soft_patient: number of each patch's patient.
    """

    body: Patches
    soft: Patches
    body_patient: Int[np.ndarray, " patches"]
    soft_patient: Int[np.ndarray, " soft"]
    layout: TextureLayout

    def texture(self) -> Texture:
        """Statistics of all patches."""
        return texture_of(self.body, self.soft, self.body_patient, self.soft_patient, self.layout)

    def groups(self, most: int) -> tuple[Texture, ...]:
        """Statistics of parts of the scans that add up to those of all.

        Parts are groups of patients, equal in number as far as possible; of a single patient,
        stretches of slices, which differ less than patients do.

        Args:
            most: number of groups, unless there are fewer patients or slices.
        """
        people = np.unique(self.body_patient)
        if len(people) > 1:
            of_body, of_soft = self.body_patient, self.soft_patient
        else:
            of_body, of_soft, people = (
                self.body.slice_number, self.soft.slice_number, np.unique(self.body.slice_number)
            )  # fmt: skip
        count = min(most, len(people))
        group_of = np.zeros(int(people.max(initial=0)) + 1, dtype=np.int64)
        group_of[people] = np.arange(len(people)) * count // max(len(people), 1)
        groups = []
        for number in range(count):
            body, soft = group_of[of_body] == number, group_of[of_soft] == number
            groups.append(
                texture_of(
                    self.body.take(np.flatnonzero(body)), self.soft.take(np.flatnonzero(soft)),
                    self.body_patient[body], self.soft_patient[soft], self.layout,
                )
            )  # fmt: skip
        return tuple(groups)


def measure_patches(
    scans: Scans,
    layout: TextureLayout,
    max_slices: int,
    side: str,
    progress: Progress = silent,
    soft: bool = True,
    also: Callable[[CTVolume, int], None] | None = None,
    patients: Sequence[str] = (),
) -> MeasuredPatches:
    """Measure the patches of scans, one scan in memory at a time.

    Args:
        max_slices: slices used in all, spread evenly over the scans.
        side: what the scans are called in messages.
        soft: whether soft tissue is measured too.
        also: called with the slices that are used of each scan, and its number.
        patients: of the scans; by default those that headers name, and unnamed scans by themselves.
    """
    facts = facts_of(scans)
    reach = max(map(_highest_frequency, facts))
    frequencies = np.arange(0.0, reach + layout.step_per_mm / 2, layout.step_per_mm)
    kinds = [PatchKind(layout.patch_mm, "body")]
    if soft:
        kinds.append(PatchKind(HOMOGENEOUS_PATCH_MM, "soft", min_fraction=1.0))
    ends = list(accumulate(scan.shape[0] for scan in facts))
    names = patients or patients_of(facts)

    def look(volume: CTVolume, numbers: Int[np.ndarray, " slices"]) -> None:
        if also is not None:
            also(volume, int(np.searchsorted(ends, numbers[0], side="right")))

    patches = domain_patches(scans, frequencies, kinds, max_slices, side, progress, look)
    body, soft_tissue = patches[0], patches[1] if soft else patches[0].take(np.arange(0))
    of_scan = numbered(names)
    body_patient, soft_patient = (
        of_scan[np.searchsorted(ends, kind_patches.slice_number, side="right")]
        for kind_patches in (body, soft_tissue)
    )
    return MeasuredPatches(body, soft_tissue, body_patient, soft_patient, layout)


def patients_of(facts: Sequence[ScanFacts]) -> list[str]:
    """Patient of each scan; one that names none is a patient of its own."""
    return [scan.patient or f"scan {number}" for number, scan in enumerate(facts)]


def texture_of(
    body: Patches,
    soft: Patches,
    body_patient: Int[np.ndarray, " patches"],
    soft_patient: Int[np.ndarray, " soft"],
    layout: TextureLayout,
) -> Texture:
    """Statistics of patches.

    Args:
        body, soft: patches of bodies, and of soft tissue.
        body_patient, soft_patient: number of each patch's patient.
    """
    low = slice(1, 1 + layout.n_low)
    energy = body.log_power[:, low].mean(axis=1)
    shape = body.log_power[:, low] - energy[:, None]
    tissue = np.digitize(body.mean_hu, TISSUE_EDGES_HU)
    hu = body.mean_hu / 1000
    stratum = np.digitize(energy, ENERGY_EDGES) * N_TISSUES + tissue
    middle = np.mean(ENERGY_EDGES)
    columns = (
        hu, hu**2, energy - middle, *shape.T[:-1], body.log_noise, body.slice_log_noise,
    )  # fmt: skip
    of_body = Moments.of(
        dict(zip(layout.body_covariates, columns, strict=True)),
        body.log_power, stratum, N_BODY_STRATA, body_patient,
    )  # fmt: skip
    f = layout.step_per_mm * np.arange(soft.log_power.shape[1])
    log_roughness = np.log(np.maximum(soft.roughness_hu, LEAST_ROUGHNESS_HU))
    ratio = log_roughness - 0.5 * _log_noise(soft.log_power, f)
    covariates = dict(
        zip(
            SOFT_COVARIATES,
            (soft.log_noise, soft.slice_log_noise, soft.radius_sq, soft.mean_hu / 100,
             log_roughness),
            strict=True,
        )
    )  # fmt: skip
    band = mean_over_patches(soft.log_power[:, in_noise_band(f)].T)[:, None]
    by_ratio, by_roughness = (
        np.digitize(ratio, RATIO_EDGES), np.digitize(log_roughness, ROUGHNESS_EDGES),
    )  # fmt: skip
    every = Moments.of(covariates, band, by_roughness, N_ROUGHNESS, soft_patient)
    means = _slice_means(
        N_ROUGHNESS, covariates, band, by_roughness, soft_patient, soft.slice_number
    )
    apart = every.sums - means.sums
    apart[:, :, 0] = apart[:, :, :, 0] = 0.0
    for term in range(apart.shape[-1]):  # no less than none, whatever rounding leaves
        apart[:, :, term, term] = np.maximum(apart[:, :, term, term], 0.0)
    apart[:, :, 0, 0] = every.counts
    within = replace(every, sums=apart)
    agent = np.where(np.isnan(soft.contrast_agent), 2, 1 - soft.contrast_agent).astype(int)
    return Texture(
        layout=layout,
        body=of_body,
        by_ratio=Moments.of(covariates, soft.log_power, by_ratio, N_RATIO, soft_patient),
        by_roughness=Moments.of(
            covariates, soft.log_power, by_roughness, N_ROUGHNESS, soft_patient
        ),
        within_slices=within,
        slices=_slice_means(
            N_RATIO,
            covariates,
            band,
            by_ratio,
            soft_patient,
            soft.slice_number,
        ),
        load=_loads(soft, soft_patient),
        contrast=Moments.of({}, np.zeros((len(soft), 1)), agent, 3, soft_patient),
        fat_mode=_modes(soft, soft_patient, FAT),
        soft_mode=_modes(soft, soft_patient, UNENHANCED_ORGANS),
    )


def soft_texture(soft: Patches, layout: TextureLayout) -> Texture:
    """Statistics of the soft tissue of one patient alone."""
    patient = np.zeros(len(soft), dtype=np.int64)
    return texture_of(soft.take(patient[:0]), soft, patient[:0], patient, layout)


def empty_texture(layout: TextureLayout, n: int) -> Texture:
    """Statistics of no scans, with so many frequencies."""
    return Texture(
        layout=layout,
        body=Moments.nothing(layout.body_covariates, N_BODY_STRATA, n),
        by_ratio=Moments.nothing(SOFT_COVARIATES, N_RATIO, n),
        by_roughness=Moments.nothing(SOFT_COVARIATES, N_ROUGHNESS, n),
        within_slices=Moments.nothing(SOFT_COVARIATES, N_ROUGHNESS, 1),
        slices=Moments.nothing(SOFT_COVARIATES, N_RATIO, 1),
        load=Moments.nothing(["slice_noise"], 2, 1),
        contrast=Moments.nothing([], 3, 1),
        fat_mode=Moments.nothing(["size"], 1, 1),
        soft_mode=Moments.nothing(["size"], 1, 1),
    )


def _highest_frequency(scan: ScanFacts) -> float:
    rows_mm, columns_mm = scan.pixel_mm
    return float(np.hypot(0.5 / rows_mm, 0.5 / columns_mm))


def _log_noise(
    log_power: Float[np.ndarray, "patches n"], frequencies_per_mm: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " patches"]:
    """Mean log power of patches where noise is strong; of coarse pixels, at the highest third."""
    log_noise = mean_over_patches(log_power[:, in_noise_band(frequencies_per_mm)].T)
    for row in np.flatnonzero(~np.isfinite(log_noise)):
        reached = log_power[row, np.isfinite(log_power[row])]
        log_noise[row] = reached[-(len(reached) // 3) :].mean() if len(reached) else np.nan
    return np.where(np.isfinite(log_noise), log_noise, 0.0)


def _slice_means(
    n_strata: int,
    covariates: dict[str, Float[np.ndarray, " patches"]],
    band: Float[np.ndarray, "patches 1"],
    stratum: Int[np.ndarray, " patches"],
    patient: Int[np.ndarray, " patches"],
    slice_number: Int[np.ndarray, " patches"],
) -> Moments:
    """Moments of the means of the patches of each slice and stratum, weighed by their number."""
    known = np.flatnonzero(np.isfinite(band[:, 0]))
    keys = stratum[known] * (slice_number.max(initial=0) + 1) + slice_number[known]
    _, first, group, count = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )

    def root_weighted(values: Float[np.ndarray, " patches"]) -> Float[np.ndarray, " groups"]:
        total = np.bincount(group, values[known], minlength=len(count))
        return total / np.sqrt(count)

    one = np.sqrt(count.astype(np.float64))
    terms = np.column_stack(
        [one, *map(root_weighted, covariates.values()), root_weighted(band[:, 0])]
    )
    moments = Moments.nothing(tuple(covariates), n_strata, 1)
    of_group = stratum[known][first]
    for k in np.unique(of_group):
        mine = terms[of_group == k]
        moments.sums[k, 0] = mine.T @ mine
    people = Moments.of({}, band, stratum, n_strata, patient)
    return replace(moments, patients=people.patients, by_patient=people.by_patient)


def _loads(soft: Patches, patient: Int[np.ndarray, " patches"]) -> Moments:
    """Moments of log tube load over slices with their expected noise: known, and unknown as 0."""
    _, first, count = np.unique(soft.slice_number, return_index=True, return_counts=True)
    used = first[count >= MIN_IN_SLICE]
    load = soft.log_tube_load[used]
    return Moments.of(
        {"slice_noise": soft.slice_log_noise[used]}, np.nan_to_num(load)[:, None],
        np.isnan(load).astype(np.int64), 2, patient[used],
    )  # fmt: skip


def _modes(soft: Patches, patient: Int[np.ndarray, " patches"], tissue: HURange) -> Moments:
    """Moments over patients of a tissue's most frequent CT number, with the patient's size."""
    people, modes, sizes = [], [], []
    for person in np.unique(patient):
        mine = patient == person
        mode = tissue_mode_hu(soft.mean_hu[mine], tissue)
        if mode is not None:
            people.append(person)
            modes.append(mode)
            sizes.append(float(soft.slice_log_noise[mine].mean()))
    return Moments.of(
        {"size": np.array(sizes)}, np.array(modes).reshape(-1, 1),
        np.zeros(len(people), dtype=np.int64), 1, np.array(people, dtype=np.int64),
    )  # fmt: skip
