"""Whether the uncertainty that `spectrum` tells covers what it errs by, beside repeated scans.

    python notebook/scripts/uncertainty_study.py --scans SCANS --out ROWS.jsonl
           [--pairs kernel vendor dose reconstruction] [--seeds 0 1 2]
    python notebook/scripts/uncertainty_study.py --data DATA --name PAIR --out ROWS.jsonl
    python notebook/scripts/uncertainty_study.py --table ROWS.jsonl [--pairs NAME ...]

SCANS holds `PAIR-SEED/scans` as `filter_study.py` makes them; DATA holds `train`, `test` and
`repeat` of one pair, such as the scans that the bundled models learn from. A model is trained on
each pair and draw of bodies, and the test scan is harmonized both ways with its uncertainty. In
blocks of 32 pixels of each tissue, and in whole slices of it, the mean CT number and the log of the
noise level are compared with the target's scan of the same body. Their difference has a known
variance: that of two scans with other noise (from the repeated scan), and what `Model.uncertainty`
tells. A row holds each difference with both.

The table gives the share of differences within 1.96 standard errors, of all that are told: by the
noise of scans alone, with the errors of fit and synthesis, and with those of the method too, which
are the constants of `inference.uncertainty`; and the least such constant that covers 95 % of the
rows. The constants are those of slices: the larger one of kernel, vendor, dose and reconstruction
together and of `denoised-quiet-fbp-noisy` with `held-out`. Other scanners must test them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

import cvsct
from body_draws import by_patient
from cvsct.core.masks import blurred
from cvsct.core.volume import CTVolume
from cvsct.inference.uncertainty import METHOD_HU, METHOD_NOISE_PERCENT, TISSUES
from cvsct.methods.base import TrainingRequest
from cvsct.methods.registry import find_method

BLOCK_PX = {"lung": 32, "fat": 24, "soft": 32, "bone": 12}
LEAST_SHARE = 0.9
"""Share of a block that must be of the tissue."""
BLOCKS = 60
"""Most blocks of a tissue in a scan, evenly spread."""
LEAST_VOXELS = 2000
"""Fewest voxels of a tissue in a slice."""
WITHIN = 1.96


@dataclass(frozen=True)
class Places:
    """Blocks or slices of one tissue."""

    kind: str
    tissue: str
    masks: Sequence[tuple[int, Bool[np.ndarray, "rows columns"]]]

    def means(self, volume: CTVolume) -> Float[np.ndarray, " places"]:
        """Mean CT number of each place in HU."""
        return np.array([volume.hu[i][mask].mean(dtype=np.float64) for i, mask in self.masks])

    def noise(self, volume: CTVolume) -> Float[np.ndarray, " places"]:
        """Log of the noise level of each place, in percent."""
        fine = volume.hu - blurred(volume.hu)
        return 100 * np.log([fine[i][mask].std(dtype=np.float64) for i, mask in self.masks])


def places_of(target: CTVolume) -> list[Places]:
    """Blocks and slices of every tissue."""
    smooth = blurred(target.hu)
    found = []
    for tissue, limits in TISSUES.items():
        inside = (smooth >= limits.low_hu) & (smooth < limits.high_hu)
        slices = [(i, mask) for i, mask in enumerate(inside) if mask.sum() >= LEAST_VOXELS]
        side, blocks = BLOCK_PX[tissue], []
        for i, plane in enumerate(inside):
            for y in range(0, plane.shape[0] - side, side):
                for x in range(0, plane.shape[1] - side, side):
                    place = slice(y, y + side), slice(x, x + side)
                    if plane[place].mean() >= LEAST_SHARE:
                        mask = np.zeros_like(plane)
                        mask[place] = plane[place]
                        blocks.append((i, mask))
        if len(blocks) > BLOCKS:
            blocks = [blocks[int(k)] for k in np.linspace(0, len(blocks) - 1, BLOCKS)]
        found += [Places(kind, tissue, masks) for kind, masks in
                  (("block", blocks), ("slice", slices)) if masks]  # fmt: skip
    return found


def measure(folder: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Differences of both directions of a pair, with what is known of their variance."""
    sides = sorted(path.name for path in (folder / "test").iterdir() if path.is_dir())
    train, test, repeat = (
        [by_patient(folder / part / side) for side in sides] for part in ("train", "test", "repeat")
    )
    row = find_method("spectrum")
    bundle = row.train(*train, TrainingRequest("spectrum", Path(), dict(row.settings)))
    model = cvsct.Model(bundle, folder)
    rows = []
    for way in (0, 1):
        for source, target, again in zip(test[way], test[1 - way], repeat[1 - way], strict=True):
            uncertainty = model.uncertainty(source, "b2a" if way else "a2b")
            for places in places_of(target):
                statistics: dict[str, Callable[[CTVolume], np.ndarray]] = {
                    "mean": places.means, "noise": places.noise,
                }  # fmt: skip
                for name, statistic in statistics.items():
                    wanted = statistic(target)
                    by_noise = float(np.sqrt(np.mean((statistic(again) - wanted) ** 2)))
                    rows.append({
                        **about, "direction": f"{sides[way]} → {sides[1 - way]}",
                        "place": places.kind, "tissue": places.tissue, "statistic": name,
                        "difference": (statistic(uncertainty.volume) - wanted).round(4).tolist(),
                        "told": uncertainty.standard_error(statistic).round(4).tolist(),
                        "by_noise": round(by_noise, 4),
                    })  # fmt: skip
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Coverage by statistic, place and tissue."""
    lines = ["| statistic | of | tissue | n | difference (RMS) | told (RMS) | noise of scans | "
             "covered by noise | and told | and of the method | least that covers |",
             "|---" * 11 + "|"]  # fmt: skip
    for statistic, constants in (("mean", METHOD_HU), ("noise", METHOD_NOISE_PERCENT)):
        for place in ("block", "slice"):
            for tissue in TISSUES:
                own = [row for row in rows if (row["statistic"], row["place"], row["tissue"])
                       == (statistic, place, tissue)]  # fmt: skip
                if own:
                    lines.append(_line(statistic, place, tissue, own, constants[tissue]))
    return "\n".join(lines)


def _line(
    statistic: str, place: str, tissue: str, rows: Sequence[dict[str, Any]], constant: float
) -> str:
    every = np.concatenate([
        [row["difference"], row["told"], [row["by_noise"]] * len(row["told"])] for row in rows
    ], axis=1)  # fmt: skip
    unit = "HU" if statistic == "mean" else "%"
    rms = [f"{np.sqrt(np.mean(part**2)):.2f} {unit}" for part in every]
    difference, told, by_noise = every

    def covered(*parts: Float[np.ndarray, " places"] | float) -> float:
        return float(np.mean(np.abs(difference) <= WITHIN * np.sqrt(sum(p**2 for p in parts))))

    steps = np.arange(0.0, 30.0, 0.05)
    least = next((m for m in steps if covered(told, by_noise, m) >= 0.95), float("nan"))
    return (
        f"| {statistic} | {place} | {tissue} | {every.shape[1]} | {rms[0]} | {rms[1]} | {rms[2]} | "
        f"{covered(by_noise):.2f} | {covered(told, by_noise):.2f} | "
        f"{covered(told, by_noise, constant):.2f} | {least:.2f} {unit} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pairs", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    if args.table:
        lines = args.table.read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if row["pair"] in (args.pairs or row["pair"])]
        print(table(rows))
        return
    pairs = args.pairs or ["kernel", "vendor", "dose", "reconstruction"]
    text = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
    known = {(row["pair"], row["seed"]) for row in map(json.loads, text.splitlines())}
    for pair, seed in [(args.name, 0)] if args.data else product(pairs, args.seeds):
        if (pair, seed) in known:
            continue
        data = args.data
        if not data:
            folder = args.scans / f"{pair}-{seed}" / "scans"
            cvsct.simulate(folder, scale="demo", parts=[f"pairs/{pair}"], seed=seed)
            data = folder / "pairs" / pair
        rows = measure(data, {"pair": pair, "seed": seed})
        with args.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        print(f"{pair}, draw {seed}: done", flush=True)


if __name__ == "__main__":
    main()
