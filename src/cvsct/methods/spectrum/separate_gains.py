"""Estimation of separate gains for noise and structure from scans of different bodies.

Two scanners differ in how sharp they are and in how they are noisy, and the two need not go
together: a power spectrum confounds them. Two kernels of one acquisition change both alike; two
vendors do not (notebook/decisions/010-two-gains.md has the figures).

*Noise* is measured where there is little else (`soft_tissue_noise`). A thick body is noisier than a
thin one; the noise expected from attenuation is taken out by a law fitted to the scans of each side
(`noise_law`). How noise falls off from the center of the image outward differs between kernels and
is kept.

*Structure* is what is left of the other patches' power when their noise is accounted for. As far as
one kernel shapes both, each gain is also what the other one says of it (`gain_relation`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.moments import Moments
from cvsct.methods.spectrum.block_gains import BlockGains
from cvsct.methods.spectrum.gain_relation import GainRelation, relate
from cvsct.methods.spectrum.matched_tissue import MatchedTissue, smooth_log_gain
from cvsct.methods.spectrum.noise_law import NoiseLaw, SideLaws, fit_noise_law, shared_laws
from cvsct.methods.spectrum.soft_tissue_noise import (
    SoftTissue,
    at_reference,
    radial_noise_gain,
    side_noise,
    texture_over_noise,
)
from cvsct.methods.spectrum.texture import HOMOGENEOUS_PATCH_MM
from cvsct.methods.spectrum.tone import soft_tissue_hu

NOISE_FROM_PER_MM = 3 / HOMOGENEOUS_PATCH_MM
"""Lowest frequency at which the noise gain is measured; below, homogeneous patches hold anatomy."""

RESOLVED_PER_MM = 2 / HOMOGENEOUS_PATCH_MM
"""Lowest frequency that homogeneous patches resolve."""

ALL_MISSING_PER_MM = 0.2
"""Frequency from which denoising may have taken noise away as measured; below, less and less."""

NOISE_SD, UNKNOWN_SD = 0.02, 0.5
"""Smallest standard error of a log noise gain, and of any gain where nothing is measured."""

STRUCTURE_SD, STRUCTURE_SD_SLOPE_MM = 0.01, 0.1
"""Smallest standard error of a log structure gain at zero frequency, and its rise per cycle/mm."""

TEXTURE_SD = 0.02
"""Standard error of a log noise gain by texture that is not told, at 0.2 cycles/mm."""

DOUBTED_TEXTURE = 0.25
"""Share of the residual texture's correction that is taken as its standard error."""

AT_ZERO_SD = 0.3
"""Standard error of the log noise gain at zero frequency: the level that dose sets, as far as one
kernel shapes noise and structure; denoising leaves the lowest frequencies as they are."""

BODIES_SD = 2.0
"""Standard deviations of expected log noise up to which slices are like the training's."""

PATCH_OVERLAP = 2.0
"""Factor of standard errors, for patches overlap by half."""


@dataclass(frozen=True)
class SeparateGains:
    """Log gains of noise and structure from source to target, and both domains' noise power.

    Args:
        noise: natural log of the amplitude gain of noise at each frequency, 100 mm from the
            middle of the image.
        noise_radial: change of the log noise gain per (100 mm)² of squared distance from the middle
            of the image, relative to 100 mm.
        structure: natural log of the amplitude gain of structure.
        source_noise: log noise power of the source in HU² mm² at the mean expected attenuation.
        target_noise: log noise power of the target, likewise.
        all_noise: log gains that make all of the output's noise where noise is added, to the target
            and back (`block_gains.AddedNoise`).
        relation: how both gains differ.
        laws: how the noise of each side follows expected noise.
        noise_sd: standard error of the noise gain's level.
        structure_sd: standard error of the structure gain at each frequency, before smoothing.
        n_homogeneous: numbers of patches of source and target in which noise was measured.
        soft_tissue_hu: mean over patients of their most frequent CT number of soft tissue, in
            source and target; None where no patient shows enough of it.
    """

    noise: Float[np.ndarray, " n"]
    noise_radial: Float[np.ndarray, " n"]
    structure: Float[np.ndarray, " n"]
    source_noise: Float[np.ndarray, " n"]
    target_noise: Float[np.ndarray, " n"]
    all_noise: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
    relation: GainRelation
    laws: SideLaws
    noise_sd: float
    structure_sd: Float[np.ndarray, " n"]
    n_homogeneous: tuple[int, int]
    soft_tissue_hu: tuple[float | None, float | None]

    def in_direction(
        self,
        frequencies_per_mm: Float[np.ndarray, " n"],
        max_gain: float,
        reverse: bool,
        synthesis: bool = False,
    ) -> BlockGains:
        """Gains of the block filter from source to target, or back."""
        return BlockGains.in_direction(
            frequencies_per_mm,
            (self.noise, self.noise_radial, self.structure),
            (self.source_noise, self.target_noise),
            self.all_noise,
            max_gain,
            reverse,
            self.laws,
            synthesis,
        )


def _combined(
    own: Float[np.ndarray, " n"],
    own_sd: Float[np.ndarray, " n"],
    other: Float[np.ndarray, " n"],
    other_sd: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Mean of two estimates by their precision, and its standard error."""
    precision = np.stack([own_sd, other_sd]) ** -2
    mean = np.average(np.stack([own, other]), axis=0, weights=precision)
    return mean, precision.sum(axis=0) ** -0.5


def fit_separate_gains(
    frequencies_per_mm: Float[np.ndarray, " n"],
    soft: tuple[SoftTissue, SoftTissue],
    bodies: MatchedTissue,
    dose_prior: tuple[float, float],
    doubt: float,
    stiffness: float,
    same_scanner: bool,
) -> SeparateGains:
    """Fit the gains of noise and structure; swapping source and target inverts them.

    Args:
        soft: soft tissue of source and target.
        bodies: tissue of the bodies, side by side.
        dose_prior: dose law expected before the scans are looked at, and its standard deviation.
        doubt: part of the fall-off of noise with radius that is taken as its standard error.
        stiffness: see `smooth_log_gain`.
        same_scanner: whether headers name one scanner for both sides.
    """
    f = frequencies_per_mm
    laws = shared_laws(
        *(
            fit_noise_law(side.texture, side.smooth, side.homogeneous + side.textured, dose_prior)
            for side in soft
        )
    )
    thickness, thickness_sd = np.transpose([side.noise_of_body for side in soft])
    reference = float(thickness.mean())
    law_sd = 0.5 * float(np.hypot(laws[0].between_sd, laws[1].between_sd))
    noise_sd = float(np.hypot(NOISE_SD, 0.5 * law_sd * (thickness[1] - thickness[0])))
    a, b = (side_noise(side, law, reference, f) for side, law in zip(soft, laws, strict=True))
    radial = radial_noise_gain(f, soft, laws, reference, doubt, stiffness)
    outward = 1 - 0.5 * sum(side.mean_radius_sq for side in soft)
    measured = np.isfinite(a.level) & np.isfinite(b.level) & (f >= NOISE_FROM_PER_MM)
    noise_raw = np.where(measured, 0.5 * (b.level - a.level) + outward * radial, 0.0)
    removed = np.fmax(a.texture, b.texture)
    measured_sd = np.where(
        measured,
        np.sqrt(
            NOISE_SD**2
            + (DOUBTED_TEXTURE * removed) ** 2
            + (TEXTURE_SD * texture_over_noise(f)) ** 2
        ),
        UNKNOWN_SD,
    )

    level_a, level_b = _fill_gaps(a.level), _fill_gaps(b.level)
    ratio, ratio_sd = bodies.structure_log_ratio(
        *(
            _noise_of_patches(side.texture.body, law, reference, level)
            for side, law, level in zip(soft, laws, (level_a, level_b), strict=True)
        )
    )
    known = np.isfinite(ratio)
    structure_raw = np.where(known, 0.5 * ratio, 0.0)
    structure_sd = np.where(
        known,
        np.hypot(0.5 * PATCH_OVERLAP * ratio_sd, STRUCTURE_SD + STRUCTURE_SD_SLOPE_MM * f),
        UNKNOWN_SD,
    )
    relation = relate(
        f, noise_raw - structure_raw, np.hypot(measured_sd, structure_sd), noise_sd, same_scanner
    )
    # Each gain is also what the other one says of it, as far as one kernel shapes both.
    level = relation.expected_level
    measured_sd = np.hypot(measured_sd, noise_sd)
    noise_log_gain, noise_log_sd = _combined(
        noise_raw, measured_sd,
        structure_raw + level, np.hypot(structure_sd, relation.prior_sd),
    )  # fmt: skip
    noise_log_gain[0], noise_log_sd[0] = level * relation.alike, AT_ZERO_SD
    noise = smooth_log_gain(noise_log_gain, noise_log_sd, stiffness, free_at_zero=True)
    structure = smooth_log_gain(
        *_combined(
            structure_raw, structure_sd,
            noise_raw - level, np.hypot(measured_sd, relation.prior_sd),
        ),
        stiffness,
    )  # fmt: skip
    return SeparateGains(
        noise=noise,
        noise_radial=radial,
        structure=structure,
        source_noise=level_a,
        target_noise=level_b,
        all_noise=(
            _all_noise_gain(f, _fill_gaps(a.most), level_b, relation),
            _all_noise_gain(f, _fill_gaps(b.most), level_a, relation),
        ),
        relation=relation,
        laws=SideLaws(
            *laws,
            reference,
            float(np.min(thickness - BODIES_SD * thickness_sd)),
            float(np.max(thickness + BODIES_SD * thickness_sd)),
        ),
        noise_sd=noise_sd,
        structure_sd=structure_sd,
        n_homogeneous=(soft[0].n_homogeneous, soft[1].n_homogeneous),
        soft_tissue_hu=(soft_tissue_hu(soft[0].texture), soft_tissue_hu(soft[1].texture)),
    )


def _noise_of_patches(
    body: Moments, law: NoiseLaw, reference: float, level: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n terms"]:
    """Expected log noise power of a patch at each frequency, as linear forms of its terms."""
    by_attenuation = -at_reference(body, law, reference)
    by_attenuation[-1] = 0.0
    return by_attenuation + np.outer(level, body.form(one=1.0))


def _all_noise_gain(
    frequencies_per_mm: Float[np.ndarray, " n"],
    most_before: Float[np.ndarray, " n"],
    after: Float[np.ndarray, " n"],
    relation: GainRelation,
) -> Float[np.ndarray, " n"]:
    """Log gain that makes all of the output's noise: half the difference of both log powers.

    Patches do not resolve the lowest frequencies. Dose changes noise there as it does elsewhere;
    denoising leaves it, so that the gain falls to none unless one scanner's kernels explain both
    sides but for a level.

    Args:
        most_before: log of all power that may be noise in the input; what it may hold already is
            not added.
        after: log noise power of the output.
    """
    f = frequencies_per_mm
    gain: Float[np.ndarray, " n"] = np.interp(
        np.maximum(f, RESOLVED_PER_MM), f, 0.5 * (after - most_before)
    )
    if relation.same_scanner and relation.alike > 0.5:
        return gain
    return gain * np.minimum(f / ALL_MISSING_PER_MM, 1.0)


def _fill_gaps(level: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Interpolate the level at frequencies where it is not known."""
    known = np.flatnonzero(np.isfinite(level))
    filled: Float[np.ndarray, " n"] = np.interp(np.arange(len(level)), known, level[known])
    return filled
