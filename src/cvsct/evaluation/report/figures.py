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
from cvsct.evaluation.agreement.concordance import ClassAgreement
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.image.edge_mtf import EdgeTransfer
from cvsct.evaluation.image.noise import TissueNoise
from cvsct.evaluation.image.quality import residual_hu
from cvsct.evaluation.image.texture import Texture
from cvsct.evaluation.shared_slices import SharedSlices

RESIDUAL_HU = 100.0
"""End of the scale of differences, symmetric about 0."""

LABELS = {name: side.label for name, side in SIDES.items()}
"""Names of the sides in tables and figures."""

COLORS = {"source": "#b0574f", "harmonized": "#2f6f9f", "retest": "#7a8f3c", "target": "#222222"}


def slice_rows(examples: Sequence[tuple[SharedSlices, int]]) -> Any:
    """Figure with a row for each example slice: the images of the sides, then their differences.

    Args:
        examples: shared slices, and the number of a slice among them.
    """
    titles = [title for title, _ in _panels(*examples[0])]
    figure = new_figure(2.3 * len(titles), 2.45 * len(examples) + 0.4, layout=None)
    figure.subplots_adjust(left=0.025, right=0.995, bottom=0.01, top=0.95, wspace=0.03, hspace=0.12)
    grid = figure.subplots(len(examples), len(titles), squeeze=False)
    for axes, (shared, index) in zip(grid, examples, strict=True):
        for axis, (title, hu) in zip(axes, _panels(shared, index), strict=True):
            draw = draw_residual if "\N{MINUS SIGN}" in title else draw_slice
            draw(axis, hu).set_title(title, fontsize=9)
        axes[0].set_ylabel(f"z = {shared.harmonized.geometry.z_mm[index]:.1f} mm", fontsize=8)
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
    for side, power_db in texture.power_db.items():
        axis.plot(texture.frequencies_per_mm, power_db, **_line_style(side))
    axis.axvspan(*texture.band_per_mm, color="#000000", alpha=0.05, linewidth=0)
    axis.set_xlabel("spatial frequency (cycles/mm)")
    axis.set_ylabel("power (dB of HU² mm²)")
    axis.set_xlim(left=0)
    axis.legend(frameon=False, fontsize=8)
    return axis


def draw_noise_power(axis: Any, sides: Mapping[str, TissueNoise]) -> Any:
    """Draw noise power against frequency, a line for each side."""
    for side, noise in sides.items():
        power = noise.power
        axis.plot(power.f_per_mm, power.power_hu2_mm2, **_line_style(side))
    axis.set_xlabel("spatial frequency (cycles/mm)")
    axis.set_ylabel("noise power (HU² mm²)")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8)
    return axis


def draw_transfer(axis: Any, sides: Mapping[str, EdgeTransfer]) -> Any:
    """Draw modulation transfer against frequency, a line for each side."""
    for side, edges in sides.items():
        axis.plot(edges.transfer.f_per_mm, edges.transfer.mtf, **_line_style(side))
    axis.set_xlabel("spatial frequency (cycles/mm)")
    axis.set_ylabel("transfer")
    axis.set_xlim(0, 1.2)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8)
    return axis


def draw_concordance(axis: Any, sides: Mapping[str, Mapping[str, ClassAgreement]]) -> Any:
    """Draw the mean concordance of each class with its 95 % interval, a color for each side."""
    classes = list(next(iter(sides.values())))
    for offset, (side, by_class) in enumerate(sides.items()):
        color = COLORS[side]
        for row, name in enumerate(classes):
            agreement = by_class[name]
            if agreement.ccc is None or agreement.low is None or agreement.high is None:
                continue
            y = row + 0.22 * (offset - (len(sides) - 1) / 2)
            axis.plot([agreement.low, agreement.high], [y, y], color=color, linewidth=1.4)
            label = LABELS[side] if row == 0 else None
            axis.plot([agreement.ccc], [y], "o", color=color, markersize=4.5, label=label)
    axis.set_yticks(range(len(classes)), classes)
    axis.invert_yaxis()
    axis.set_xlim(-0.1, 1.02)
    axis.set_xlabel("concordance with the target over regions (CCC)")
    axis.axvline(0, color="#999999", linewidth=0.6)
    if axis.get_legend_handles_labels()[0]:  # a single region has no concordance to draw
        axis.legend(
            frameon=False, fontsize=8, ncols=len(sides), loc="lower left", bbox_to_anchor=(0, 1)
        )
    return axis


def new_figure(width_in: float, height_in: float, layout: str | None = "constrained") -> Any:
    """Empty figure, with automatic layout unless that is None.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    return load_extra("matplotlib.figure").Figure(figsize=(width_in, height_in), layout=layout)


def png_base64(figure: Any, dpi: int = 110) -> str:
    """The figure as a PNG in base64, to embed in HTML."""
    canvas = load_extra("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.set_dpi(dpi)
    canvas.print_png(buffer, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _panels(
    shared: SharedSlices, index: int
) -> list[tuple[str, Float[np.ndarray, "rows columns"]]]:
    """Images of a row with their titles; a minus sign in a title marks a difference."""
    volumes = {
        side: volume.hu[index]
        for side in ("source", "harmonized", "target")
        if (volume := getattr(shared, side)) is not None
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


def _line_style(side: str) -> dict[str, Any]:
    """Style of a side's curve; the target's is dashed."""
    style = "--" if side == "target" else "-"
    return {"linestyle": style, "color": COLORS[side], "linewidth": 1.4, "label": LABELS[side]}


def _without_ticks(axis: Any) -> Any:
    axis.set_xticks([])
    axis.set_yticks([])
    return axis
