"""Pictures of the site: the gallery and the concept pages, from simulated scans alone.

    cvsct simulate --out scans --scale demo --parts test,kernels
    python scripts/site_pictures.py --scans scans                     # about a minute

Each gallery picture shows one slice before, after and of the target, the difference after,
and the noise power spectra of all three in homogeneous soft tissue. The models are those
that come with the package, which have seen none of these bodies (`scripts/bundled_scans.py`).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import cvsct
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.noise import tissue_noise

DOCS = Path(__file__).resolve().parents[1] / "docs"
SOFT_HU, LUNG_HU, DIFFERENCE_HU = (-160.0, 240.0), (-1000.0, -200.0), (-100.0, 100.0)
SIDES = {"before": ("#b45f06", "--"), "after": ("#00695c", "-"), "target": ("#37474f", ":")}
QUALITY = {"quality": 82, "method": 6}


@dataclass(frozen=True)
class Example:
    """A gallery picture: scans of one body on both scanners, and the model between them."""

    name: str
    before: str
    target: str
    model: str
    direction: str
    window_hu: tuple[float, float] = SOFT_HU


EXAMPLES = (
    Example("ge-to-siemens", "test/ge-revolution-evo", "test/siemens-somatom-force",
            "ge-lung-siemens-bl64-spectrum", "a2b"),
    Example("siemens-to-ge", "test/siemens-somatom-force", "test/ge-revolution-evo",
            "ge-lung-siemens-bl64-spectrum", "b2a"),
    Example("sharp-to-soft", "kernels/test/Bl64", "kernels/test/Br40",
            "siemens-bl64-br40-spectrum", "a2b", LUNG_HU),
    Example("soft-to-sharp", "kernels/test/Br40", "kernels/test/Bl64",
            "siemens-bl64-br40-spectrum", "b2a", LUNG_HU),
    Example("ge-to-siemens-network", "test/ge-revolution-evo", "test/siemens-somatom-force",
            "ge-lung-siemens-bl64-cvsct", "a2b"),
)  # fmt: skip


def show(axis: Axes, hu: Float[np.ndarray, "rows columns"], window: tuple[float, float]) -> None:
    """One slice in gray."""
    axis.imshow(hu, cmap="gray", vmin=window[0], vmax=window[1], interpolation="lanczos")
    axis.set_axis_off()


def cut(hu: Float[np.ndarray, "rows columns"], half: int = 96) -> Float[np.ndarray, "r c"]:
    """A detail of the image, left of its middle, enlarged by being cut out."""
    row, column = hu.shape[0] // 2, hu.shape[1] // 2 - 60
    return hu[row - half : row + half, column - half : column + half]


def trimmed(hu: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "r c"]:
    """The image without most of the air above and below the body."""
    rows = np.flatnonzero((hu > -300).sum(1) > 40)
    return hu[max(rows[0] - 15, 0) : rows[-1] + 15]


def spectra(axis: Axes, sides: dict[str, CTVolume]) -> dict[str, float]:
    """Noise power of all sides on the same patches of soft tissue; their standard deviations."""
    noise = tissue_noise({side: [volume] for side, volume in sides.items()})
    for side, found in noise.items():
        color, style = SIDES[side]
        axis.plot(found.power.f_per_mm, found.power.power_hu2_mm2, color=color, ls=style, lw=2,
                  label=f"{side}, {found.level.value:.0f} HU")  # fmt: skip
    patches = next(iter(noise.values())).n_regions
    axis.set_title(f"noise power, {patches} patches", fontsize=9)
    axis.set_xlabel("cycles/mm", fontsize=8)
    axis.set_ylabel("HU² mm²", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7)
    return {side: round(found.level.value, 1) for side, found in noise.items()}


def gallery_picture(example: Example, scans: Path, out: Path) -> dict[str, Any]:
    """Draw one picture; returns the figures that its caption quotes."""
    before = cvsct.read_series(scans / example.before)
    target = cvsct.read_series(scans / example.target)
    model = cvsct.load_model(example.model)
    mapped = model.harmonize(before, example.direction)
    after = mapped.volume
    index = len(before.hu) // 2
    sides = {"before": before, "after": after, "target": target}
    figure = Figure(figsize=(11, 5.4), dpi=110, layout="constrained")
    axes = figure.subplots(2, 4)
    for axis, (side, volume) in zip(axes[0], sides.items(), strict=False):
        show(axis, trimmed(volume.hu[index]), example.window_hu)
        axis.set_title(side, fontsize=9)
    levels = spectra(axes[0][3], sides)
    show(axes[1][0], cut(before.hu[index]), example.window_hu)
    show(axes[1][1], cut(after.hu[index]), example.window_hu)
    show(axes[1][2], cut(target.hu[index]), example.window_hu)
    for axis, side in zip(axes[1], sides, strict=False):
        axis.set_title(f"{side}, detail", fontsize=9)
    show(axes[1][3], cut(after.hu[index] - target.hu[index]), DIFFERENCE_HU)
    axes[1][3].set_title("after less target, ±100 HU", fontsize=9)
    figure.savefig(out / f"{example.name}.webp", pil_kwargs=QUALITY)
    return {
        "model": example.model, "direction": example.direction, "slice": index,
        "input_check": mapped.input_check.kind if mapped.input_check else None,
        "flagged_slices": mapped.n_flagged, "noise_hu": levels,
    }  # fmt: skip


def kernels_picture(scans: Path, out: Path) -> None:
    """One acquisition with a soft and a sharp kernel."""
    figure = Figure(figsize=(9, 3.3), dpi=110, layout="constrained")
    axes = figure.subplots(1, 3)
    sides = {}
    for axis, name, side in zip(axes, ("Br40", "Bl64"), ("before", "target"), strict=False):
        volume = cvsct.read_series(scans / "kernels/test" / name)
        sides[name] = volume
        show(axis, cut(volume.hu[len(volume.hu) // 2], 110), SOFT_HU)
        axis.set_title(f"{'soft' if side == 'before' else 'sharp'} kernel ({name})", fontsize=9)
    noise = tissue_noise({name: [volume] for name, volume in sides.items()})
    for (name, found), (color, style) in zip(noise.items(), SIDES.values(), strict=False):
        axes[2].plot(found.power.f_per_mm, found.power.power_hu2_mm2, color=color, ls=style, lw=2,
                     label=f"{name}: {found.level.value:.0f} HU")  # fmt: skip
    axes[2].set_title("noise power in soft tissue", fontsize=9)
    axes[2].set_xlabel("cycles/mm", fontsize=8)
    axes[2].set_ylabel("HU² mm²", fontsize=8)
    axes[2].tick_params(labelsize=7)
    axes[2].legend(fontsize=8)
    figure.savefig(out / "kernels.webp", pil_kwargs=QUALITY)


def gains_picture(out: Path) -> None:
    """Gains of noise and of structure of the bundled `spectrum` models."""
    figure = Figure(figsize=(8, 3.2), dpi=110, layout="constrained")
    titles = {"siemens-bl64-br40-spectrum": "two kernels: Siemens Bl64 to Br40",
              "ge-lung-siemens-bl64-spectrum": "two vendors: GE Lung to Siemens Bl64"}  # fmt: skip
    for axis, (name, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        weights = cvsct.load_model(name).bundle.weights
        f = weights["frequencies_per_mm"]
        shown = f <= 0.7
        for key, color, style in (("noise", "#b45f06", "--"), ("structure", "#00695c", "-")):
            gain = np.exp(weights[f"{key}_log_gain"])
            axis.plot(f[shown], gain[shown], color=color, ls=style, lw=2, label=key)
        axis.axhline(1, color="#90a4ae", lw=1)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("cycles/mm", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=8)
        axis.set_ylim(0, 1.25)
    figure.axes[0].set_ylabel("gain", fontsize=8)
    figure.savefig(out / "gains.webp", pil_kwargs=QUALITY)


def concordance_picture(out: Path) -> None:
    """Equal correlation and different concordance, on random points."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, 40)
    y = x + rng.normal(0, 0.3, 40)
    figure = Figure(figsize=(9, 3.9), dpi=110, layout="constrained")
    cases = (("same values", y), ("shifted", y + 1.5), ("scaled", 2.2 * y))
    for axis, (title, values) in zip(figure.subplots(1, 3), cases, strict=True):
        r = np.corrcoef(x, values)[0, 1]
        shift = (x.mean() - values.mean()) ** 2
        ccc = 2 * np.cov(x, values, ddof=0)[0, 1] / (x.var() + values.var() + shift)
        axis.plot([-5, 5], [-5, 5], color="#90a4ae", lw=1)
        axis.plot(x, values, "o", color="#00695c", ms=4)
        axis.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal")
        axis.set_title(f"{title}\ncorrelation {r:.2f}, concordance {ccc:.2f}", fontsize=9)
        axis.set_xlabel("scanner A", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.axes[0].set_ylabel("scanner B", fontsize=8)
    figure.savefig(out / "concordance.webp", pil_kwargs=QUALITY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=Path, required=True, help="of cvsct simulate")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the site's pages")
    parser.add_argument("--only", help="name of one picture of the gallery")
    arguments = parser.parse_args()
    concepts, gallery = arguments.docs / "concepts", arguments.docs / "gallery"
    for folder in (concepts, gallery):
        folder.mkdir(parents=True, exist_ok=True)
    figures = gallery / "figures.json"
    told = json.loads(figures.read_text(encoding="utf-8")) if arguments.only else {}
    for example in EXAMPLES:
        if arguments.only in (None, example.name):
            told[example.name] = gallery_picture(example, arguments.scans, gallery)
            print(example.name, json.dumps(told[example.name]))
    figures.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8", newline="\n")
    if not arguments.only:
        kernels_picture(arguments.scans, concepts)
        gains_picture(concepts)
        concordance_picture(concepts)


if __name__ == "__main__":
    main()
