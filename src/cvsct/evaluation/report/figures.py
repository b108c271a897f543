"""The report's figures: each function takes data and axes, and returns the axes.

They do not use pyplot, so nothing opens a window or keeps global state.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.masks import SOFT_TISSUE_WINDOW
from cvsct.core.sides import SIDES
from cvsct.evaluation.agreement.comparison import THRESHOLDS
from cvsct.evaluation.agreement.concordance import ClassAgreement
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.image.edge_mtf import EdgeTransfer
from cvsct.evaluation.image.noise import TissueNoise
from cvsct.evaluation.image.quality import residual_hu
from cvsct.evaluation.image.texture import Texture
from cvsct.evaluation.report.examples import Example

RESIDUAL_HU = 100.0
"""End of the scale of differences, symmetric about 0."""

LABELS = {name: side.label for name, side in SIDES.items()}
"""Names of the sides in tables and figures."""

COLORS = {"source": "#b0574f", "harmonized": "#2f6f9f", "retest": "#7a8f3c", "target": "#222222"}
LINES = {"source": "-.", "harmonized": "-", "retest": ":", "target": "--"}
MARKERS = {"source": "s", "harmonized": "o", "retest": "^", "target": "D"}
"""Color, line style and marker of each side: any one of them tells the sides apart."""

MARKS = 8
"""Number of markers on a curve, about."""

RATIO_LIMITS = (0.25, 4.0)
"""Ends of the scale of ratios to the target; what lies beyond is not seen."""

BAND_SHARE = 0.9
"""End of the compared band of texture as a share of the Nyquist frequency (0.45 cycles/px)."""


def slice_rows(examples: Sequence[Example]) -> Any:
    """Figure with a row for each example slice: the images of the sides, then their differences."""
    titles = [title for title, _ in _panels(examples[0])]
    figure = new_figure(2.3 * len(titles), 2.45 * len(examples) + 0.4, layout=None)
    figure.subplots_adjust(left=0.025, right=0.995, bottom=0.01, top=0.95, wspace=0.03, hspace=0.12)
    grid = figure.subplots(len(examples), len(titles), squeeze=False)
    for axes, example in zip(grid, examples, strict=True):
        for axis, (title, hu) in zip(axes, _panels(example), strict=True):
            draw = draw_residual if "\N{MINUS SIGN}" in title else draw_slice
            draw(axis, hu).set_title(title, fontsize=9)
        axes[0].set_ylabel(example.name, fontsize=8)
    return figure


def draw_slice(axis: Any, hu: Float[np.ndarray, "rows columns"]) -> Any:
    """Draw a slice in the soft-tissue window."""
    low, high = SOFT_TISSUE_WINDOW.limits_hu
    axis.imshow(hu, cmap="gray", vmin=low, vmax=high, interpolation="none")
    return _without_ticks(axis)


def draw_residual(axis: Any, hu: Float[np.ndarray, "rows columns"]) -> Any:
    """Draw a difference of two slices on a scale symmetric about 0."""
    axis.imshow(hu, cmap="RdBu_r", vmin=-RESIDUAL_HU, vmax=RESIDUAL_HU, interpolation="none")
    return _without_ticks(axis)


def draw_spectra(axis: Any, texture: Texture) -> Any:
    """Draw texture power against frequency, a line for each side, and shade the compared band."""
    nyquist = texture.band_per_mm[1] / BAND_SHARE
    shown = texture.frequencies_per_mm <= nyquist
    for side, power_db in texture.power_db.items():
        axis.plot(
            texture.frequencies_per_mm[shown], power_db[shown], **_style(side, int(shown.sum()))
        )
    axis.axvspan(*texture.band_per_mm, color="#000000", alpha=0.05, linewidth=0)
    axis.set_xlabel("spatial frequency (cycles/mm)")
    axis.set_ylabel("power (dB of HU² mm²)")
    axis.set_xlim(0, nyquist)
    axis.legend(frameon=False, fontsize=8, handlelength=3)
    return axis


def draw_noise_power(axis: Any, sides: Mapping[str, TissueNoise], ratios: Any = None) -> Any:
    """Draw noise power against frequency up to the Nyquist frequency, a line for each side.

    The band around a line is the 95 % interval over patches.

    Args:
        ratios: axes beneath, for the ratio of each side to the target; None draws none.
    """
    curves = {side: (noise.power.f_per_mm, noise.power.power_hu2_mm2)
              for side, noise in sides.items()}  # fmt: skip
    nyquist = {side: 0.5 / noise.power.pixel_mm for side, noise in sides.items()}
    _draw_curves(axis, ratios, curves, nyquist)
    for side, noise in sides.items():
        axis.fill_between(
            noise.power.f_per_mm, *noise.power_interval, color=COLORS[side], alpha=0.15, linewidth=0
        )
    axis.set_ylabel("noise power (HU² mm²)")
    return axis


def draw_transfer(axis: Any, sides: Mapping[str, EdgeTransfer], ratios: Any = None) -> Any:
    """Draw modulation transfer against frequency up to the Nyquist frequency, a line for each side.

    The bar on a curve at 0.5 is the 95 % interval of its 50 % frequency.

    Args:
        ratios: axes beneath, for the ratio of each side to the target; None draws none.
    """
    curves = {side: (edges.transfer.f_per_mm, edges.transfer.mtf) for side, edges in sides.items()}
    nyquist = {side: float(f[-1]) / 2 for side, (f, _) in curves.items()}
    _draw_curves(axis, ratios, curves, nyquist)
    for offset, (side, edges) in enumerate(sides.items()):
        if edges.mtf50.interval is not None:
            y = 0.5 + 0.02 * (offset - (len(sides) - 1) / 2)
            axis.plot(edges.mtf50.interval, [y, y], color=COLORS[side], linewidth=3, alpha=0.6)
    axis.set_ylabel("transfer")
    return axis


def _draw_curves(
    axis: Any,
    ratios: Any,
    curves: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]],
    nyquist_per_mm: Mapping[str, float],
) -> None:
    """Draw curves, each up to its Nyquist frequency, and beneath their ratios to the target's."""
    end = max(nyquist_per_mm.values())
    for side, (f, values) in curves.items():
        shown = f <= nyquist_per_mm[side]
        axis.plot(f[shown], values[shown], **_style(side, int(shown.sum())))
    for each in (axis, ratios) if ratios is not None else (axis,):
        each.set_xlim(0, end)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8, handlelength=3)
    (axis if ratios is None else ratios).set_xlabel("spatial frequency (cycles/mm)")
    if ratios is None:
        return
    for side, (f, values) in curves.items():
        common = f <= min(nyquist_per_mm[side], nyquist_per_mm["target"])
        target = np.interp(f, *curves["target"])
        known = common & (target > 0.02 * np.max(curves["target"][1]))
        if side == "target" or not known.any():
            continue
        ratios.plot(f[known], values[known] / target[known], **_style(side, int(known.sum())))
    ratios.axhline(1, color=COLORS["target"], linestyle=LINES["target"], linewidth=1)
    ratios.set_yscale("log", base=2)
    ratios.set_ylim(*RATIO_LIMITS)
    ticks = (0.25, 0.5, 1, 2, 4)
    ratios.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ratios.minorticks_off()
    ratios.set_ylabel("ratio to\ntarget", fontsize=8)


def draw_concordance(axis: Any, sides: Mapping[str, Mapping[str, ClassAgreement]]) -> Any:
    """Draw the mean concordance of each class with its 95 % interval, a marker for each side."""
    classes = list(next(iter(sides.values())))
    for offset, (side, by_class) in enumerate(sides.items()):
        color = COLORS[side]
        label: str | None = LABELS[side]
        for row, name in enumerate(classes):
            agreement = by_class[name]
            if agreement.ccc is None:
                continue
            y = row + 0.24 * (offset - (len(sides) - 1) / 2)
            if agreement.low is not None and agreement.high is not None:
                ends = [agreement.low, agreement.high]
                axis.plot(ends, [y, y], color=color, linewidth=1.4, linestyle=LINES[side])
            axis.plot([agreement.ccc], [y], MARKERS[side], color=color, markersize=5, label=label)
            label = None
    axis.set_yticks(range(len(classes)), classes)
    axis.invert_yaxis()
    axis.set_xlim(-0.1, 1.02)
    axis.set_xlabel("concordance with the target over regions (CCC)")
    axis.axvline(0, color="#999999", linewidth=0.6)
    mark_levels(axis)
    if axis.get_legend_handles_labels()[0]:  # a single region has no concordance to draw
        axis.legend(
            frameon=False, fontsize=8, ncols=len(sides), loc="lower left", bbox_to_anchor=(0, 1)
        )
    return axis


def mark_levels(axis: Any) -> None:
    """Draw and label the vertical lines of `THRESHOLDS`."""
    for level, side in zip(THRESHOLDS, ("right", "left"), strict=True):
        axis.axvline(level, color="#666666", linewidth=0.8, linestyle=(0, (4, 3)))
        shift = -2 if side == "right" else 2
        axis.annotate(
            f"{level:.2f}".lstrip("0"), (level, 1), xycoords=("data", "axes fraction"),
            xytext=(shift, 3), textcoords="offset points", ha=side, fontsize=8, color="#444444",
        )  # fmt: skip


def new_figure(width_in: float, height_in: float, layout: str | None = "constrained") -> Any:
    """Empty figure, with automatic layout unless that is None.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    return load_extra("matplotlib.figure").Figure(figsize=(width_in, height_in), layout=layout)


def svg_base64(figure: Any) -> str:
    """The figure as an SVG in base64: sharp in print and at every zoom; for plots of lines."""
    canvas = load_extra("matplotlib.backends.backend_svg").FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    with load_extra("matplotlib").rc_context({"svg.hashsalt": "cvsct"}):  # the same bytes each time
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def png_base64(figure: Any, dpi: int = 110) -> str:
    """The figure as a PNG in base64, to embed in HTML."""
    canvas = load_extra("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.set_dpi(dpi)
    canvas.print_png(buffer, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _panels(example: Example) -> list[tuple[str, Float[np.ndarray, "rows columns"]]]:
    """Images of a row with their titles; a minus sign in a title marks a difference."""
    volumes = {
        side: volume.hu[example.index]
        for side in ("source", "harmonized", "target")
        if (volume := getattr(example.shared, side)) is not None
    }
    panels = [(LABELS[side], hu) for side, hu in volumes.items()]
    differences = [("source", "target"), ("harmonized", "target")]
    if "target" not in volumes:
        differences = [("harmonized", "source")]
    panels += [
        (f"{LABELS[a]} \N{MINUS SIGN} {LABELS[b]}", residual_hu(volumes[a], volumes[b]))
        for a, b in differences
        if a in volumes and b in volumes
    ]
    return panels


def _style(side: str, n_points: int) -> dict[str, Any]:
    """Style of a side's curve of so many points: color, line style, and about `MARKS` markers."""
    step = max(1, int(n_points) // MARKS)
    start = list(COLORS).index(side) * step // len(COLORS)
    return {
        "linestyle": LINES[side], "marker": MARKERS[side], "color": COLORS[side],
        "markevery": (start, step), "markersize": 4, "linewidth": 1.4, "label": LABELS[side],
    }  # fmt: skip


def _without_ticks(axis: Any) -> Any:
    axis.set_xticks([])
    axis.set_yticks([])
    return axis
