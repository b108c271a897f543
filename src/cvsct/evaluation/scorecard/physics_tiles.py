"""Tiles of noise, resolution, CT numbers and geometry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cvsct.evaluation.image.alignment import Alignment
from cvsct.evaluation.image.noise import PIXEL_TOLERANCE
from cvsct.evaluation.image.tissues import TISSUES, Tissue, TissueBias
from cvsct.evaluation.resampled import Resampled, draw_weights
from cvsct.evaluation.scorecard.judge import (
    interval_text,
    is_clear,
    judge,
    passing_range,
    percent,
    percent_range,
    range_text,
    reason_for,
)
from cvsct.evaluation.scorecard.tile import GRAVITY, Tile, worst
from cvsct.evaluation.scorecard.tolerances import Tolerance

if TYPE_CHECKING:
    from cvsct.evaluation.result import Evaluation

WORSE_SHARE = 0.25
"""Share of the tolerance of CT numbers by which a tissue must have moved away from the target to
count as made worse, besides an interval above 0."""

TINY_HU = 1e-9
"""In place of a tolerance of 0, by which nothing can be divided."""

MIN_TISSUE_PIXELS = 400
"""Smallest number of pixels of a tissue that is judged, a square of 20: fewer lie at a few places,
mostly where edges pass through the tissue's range."""

MIN_SLICES = 3
"""Smallest number of slices from which a displacement is judged."""

MOVED_SHARE = 0.05
"""Largest share of slices beyond what fails with which geometry passes: a median does not show
slices that lie elsewhere than most."""


def _on_all_series(tile: Tile, evaluation: Evaluation) -> Tile:
    """A tile of noise or edges, which does not pass where some series were not measured."""
    pixels_mm = [slices.harmonized.pixel_mm for slices in evaluation.shared]
    others = sum(abs(pixel_mm / pixels_mm[0] - 1) >= PIXEL_TOLERANCE for pixel_mm in pixels_mm)
    if tile.status != "pass" or not others:
        return tile
    reason = (
        f"{others} of {len(pixels_mm)} series have another pixel size than the first and were not "
        "measured; evaluate series of each pixel size by themselves"
    )
    return replace(tile, status="not enough data", reason=reason)


def noise_level(evaluation: Evaluation) -> Tile:
    """Standard deviation of noise against the target's."""
    return _noise_tile(
        evaluation,
        ("noise_level", "Noise level"),
        {side: noise.level for side, noise in evaluation.physics.noise.items()},
        evaluation.settings.tolerances.noise_level,
        "{:.1f} HU without the two lowest rings",
        ("less noise than the target", "more noise than the target"),
    )


def noise_texture(evaluation: Evaluation) -> Tile:
    """Mean frequency of noise against the target's."""
    return _noise_tile(
        evaluation,
        ("noise_texture", "Noise texture"),
        {side: noise.mean_frequency for side, noise in evaluation.physics.noise.items()},
        evaluation.settings.tolerances.noise_texture,
        "mean frequency {:.3f} per mm",
        ("coarser noise than the target", "finer noise than the target"),
    )


def _noise_tile(
    evaluation: Evaluation,
    names: tuple[str, str],
    by_side: Mapping[str, Resampled],
    tolerance: Tolerance,
    shown: str,
    less_and_more: tuple[str, str],
) -> Tile:
    """Tile of a figure of noise.

    Args:
        names: key and title of the tile.
        shown: format of the figure.
    """
    why_none = _why_none(evaluation, "no homogeneous tissue in which noise could be measured")
    tile = _relative_tile(*names, by_side, tolerance, shown.format, less_and_more, why_none)
    return _on_all_series(tile, evaluation)


def resolution(evaluation: Evaluation) -> Tile:
    """50 % transfer over natural edges against the target's; the worst kind of edge."""
    tolerance = evaluation.settings.tolerances.resolution
    kinds = [
        _relative_tile(
            "resolution",
            "Resolution",
            {side: edges.mtf50 for side, edges in by_side.items()},
            tolerance,
            f"{kind} edges: 50 % at {{:.3f}} per mm".format,
            (f"less sharp than the target at {kind} edges",
             f"sharper than the target at {kind} edges"),
            _why_none(evaluation, f"too few {kind} edges"),
        )
        for kind, by_side in evaluation.physics.edges.items()
    ]  # fmt: skip
    if kinds:
        return _on_all_series(worst(kinds), evaluation)
    return Tile("resolution", "Resolution", "not enough data", "", "the target's",
                percent_range(*passing_range(tolerance)),
                _why_none(evaluation, "too few clear edges of skin or lung"))  # fmt: skip


def _why_none(evaluation: Evaluation, why: str) -> str:
    """Why a figure is missing: without any pairs the harmonized images were not measured at all."""
    if evaluation.shared:
        return why
    return "no slices pair, neither with the target nor with a source; give the source's scans"


def _relative_tile(
    key: str,
    title: str,
    by_side: Mapping[str, Resampled],
    tolerance: Tolerance,
    shown: Callable[[float], str],
    less_and_more: tuple[str, str],
    why_none: str,
) -> Tile:
    """Tile of a figure relative to the target's."""
    if not {"harmonized", "target"} <= by_side.keys():
        return Tile(key, title, "not enough data", "", "the target's",
                    percent_range(*passing_range(tolerance)), why_none)  # fmt: skip
    new, target = by_side["harmonized"], by_side["target"]
    figure = new.relative_to(target)
    retest = by_side["retest"].relative_to(target) if "retest" in by_side else None
    passes = passing_range(tolerance, retest)
    status = judge(figure, tolerance, retest)
    words = f"{100 * abs(figure.value):.0f} % {less_and_more[figure.value > 0]}"
    value = f"{shown(new.value)}, {percent(figure.value)}{interval_text(figure, percent)}"
    limit = percent_range(*passes)
    if retest is not None and np.isfinite(retest.value):
        limit += f" (retest {percent(retest.value)})"
    return Tile(
        key,
        title,
        status,
        value if np.isfinite(figure.value) else "",
        shown(target.value) if np.isfinite(target.value) else "the target's",
        limit,
        reason_for(status, figure, passes, title.lower(), words),
    )


def ct_numbers(evaluation: Evaluation) -> Tile:
    """Mean difference from the target's CT numbers; as the worst tissue, naming all outside."""
    tolerances = evaluation.settings.tolerances.ct_numbers
    bias = evaluation.physics.bias
    n_pixels = {tissue: each.n_pixels for tissue, each in bias.get("harmonized", {}).items()}
    tiles = {
        tissue: _tissue_tile(tissue, tolerances[tissue],
                             {side: by_tissue[tissue] for side, by_tissue in bias.items()})
        for tissue in TISSUES
        if n_pixels.get(tissue, 0) >= MIN_TISSUE_PIXELS
    }  # fmt: skip
    few = [
        f"{tissue} not judged ({n} pixels, of {MIN_TISSUE_PIXELS} needed)"
        for tissue, n in n_pixels.items()
        if 0 < n < MIN_TISSUE_PIXELS
    ]
    if not tiles:
        why = evaluation.unpaired_because or "no tissue is wide enough"
        limits = "; ".join(f"{tissue} ±{each.passes:g} HU" for tissue, each in tolerances.items())
        return Tile("ct_numbers", "CT numbers by tissue", "not enough data", "; ".join(few),
                    "0 HU", limits, why)  # fmt: skip
    status = worst(list(tiles.values())).status

    def badness(tissue: Tissue) -> tuple[int, float]:
        mean_hu = bias["harmonized"][tissue].mean_hu or 0.0
        passes_hu = max(tolerances[tissue].passes, TINY_HU)
        return GRAVITY[tiles[tissue].status], abs(mean_hu) / passes_hu

    least = min(GRAVITY[status], GRAVITY["attention"])
    named = [tissue for tissue in tiles if GRAVITY[tiles[tissue].status] >= least]
    reasons = [tiles[tissue].reason for tissue in sorted(named, key=badness, reverse=True)]
    return Tile(
        "ct_numbers",
        "CT numbers by tissue",
        status,
        "; ".join([*(tile.value for tile in tiles.values()), *few]),
        "0 HU",
        "; ".join(tile.tolerance for tile in tiles.values()),
        "; ".join(dict.fromkeys(reasons)),
    )


def _tissue_tile(tissue: Tissue, tolerance: Tolerance, sides: Mapping[str, TissueBias]) -> Tile:
    figures = {side: bias.resampled for side, bias in sides.items() if bias.resampled}
    figure, retest, old = (figures.get(side) for side in ("harmonized", "retest", "source"))
    status = judge(figure, tolerance, retest)
    assert figure is not None  # the tissue has pixels
    passes = passing_range(tolerance, retest)
    words = f"{tissue} is {figure.value:+.1f} HU from the target's"
    reason = reason_for(status, figure, passes, tissue, words)
    away = [
        (number, one)
        for number, one in sides["harmonized"].of_series.items()
        if is_clear(one, passes)
    ]
    if status == "pass" and away:
        number, one = max(away, key=lambda item: abs(item[1].value))
        status, reason = "attention", f"{tissue} of series {number} is {one.value:+.1f} HU away"
    if old is not None and _is_worse(figure, old, tolerance):
        if status != "fail":
            status = "attention"
        reason = f"{tissue} was {old.value:+.1f} HU from the target's and is {figure.value:+.1f} HU"
    return Tile(
        tissue,
        tissue,
        status,
        f"{tissue} {figure.value:+.1f} HU{interval_text(figure, '{:+.1f}'.format)}",
        "0 HU",
        f"{tissue} {range_text(*passes)} HU",
        reason,
    )


def _is_worse(new: Resampled, old: Resampled, tolerance: Tolerance) -> bool:
    """Whether a figure is clearly further from 0 than before."""
    change = new.magnitude.less(old.magnitude)
    clear = change.interval is not None and change.interval[0] > 0
    return clear and change.value > WORSE_SHARE * tolerance.passes


def geometry(evaluation: Evaluation) -> Tile:
    """Displacement by harmonization, or from the target where no source is given."""
    tolerance = evaluation.settings.tolerances.geometry
    shift = evaluation.physics.shift
    moved = shift.get("moved") or shift.get("harmonized")
    against = "source" if "moved" in shift else "target"
    figure = _displacement(moved, evaluation.settings.seed) if moved else None
    status = judge(figure, tolerance)
    if figure is None:
        reason = _why_none(evaluation, f"fewer than {MIN_SLICES} slices could be aligned")
        value = ""
    else:
        value = f"{figure.value:.2f} px from the {against}{interval_text(figure, '{:.2f}'.format)}"
        words = f"images lie {figure.value:.2f} px from the {against}'s"
        reason = reason_for(status, figure, passing_range(tolerance), "the displacement", words)
        lengths_px = np.hypot(*moved.slices_px.T) if moved else np.empty(0)
        beyond = int((lengths_px > tolerance.fails).sum())
        if status == "pass" and beyond > MOVED_SHARE * len(lengths_px):
            status = "attention"
            reason = (
                f"{beyond} of {len(lengths_px)} slices lie more than {tolerance.fails:g} px from "
                f"the {against}'s"
            )
    return Tile("geometry", "Geometry", status, value, "0 px",
                f"{tolerance.passes:g} px", reason)  # fmt: skip


def _displacement(moved: Alignment, seed: int) -> Resampled | None:
    """Length of the median displacement, resampled over slices."""
    slices = moved.slices_px[np.isfinite(moved.slices_px).all(axis=1)]
    n = len(slices)
    if n < MIN_SLICES:
        return None
    samples = [
        np.hypot(*np.median(np.repeat(slices, counts.astype(int), axis=0), axis=0))
        for counts in draw_weights(n, seed, "slices")
    ]
    return Resampled(moved.length_px, np.array(samples))
