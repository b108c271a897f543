"""How near a method comes to the other scanner, by tissue, over several draws of bodies.

    python notebook/scripts/filter_study.py --scans FOLDER --out ROWS.jsonl --label NAME
           [--method spectrum] [--pairs kernel vendor ...] [--seeds 0 1 2] [--set key=value ...]
           [--rois 120]

Scans of a pair and a seed are made by `cvsct simulate --scale demo --parts pairs/PAIR --seed SEED`
in FOLDER/PAIR-SEED, unless they are there. For each pair, seed and direction the method, one that
needs no training steps, is trained with the settings given and its output compared with the
target's scan of the same bodies; input and repeated scan are measured alike. ROWS.jsonl holds a
line each; what it holds already is kept, so that the same command goes on. The pair `held-out` is
never measured unless it is named. Times are of one core's processor.

The structure of each tissue is judged against the repeated scan, whose noise is another: the
power that an image shares with the repeated scan, over the power that the target shares with it,
in three bands of frequency. 1 is the target's sharpness. Its root is given. *Energy* is the
root of the ratio of all power, noise included.

    python notebook/scripts/filter_study.py --table ROWS.jsonl [--only LABEL ...] [--column NAME]
           [--less LABEL]

prints means over seeds, and the range of concordance where there are several; with --column, such
as `across` or `noise`, that column alone, a column for each label; with --less, the differences of
that column from a label's, draw by draw, and their mean with half of its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

import cvsct
from body_draws import by_patient, measured, summary
from cvsct.cli.train import parse_settings
from cvsct.core.masks import BONE, blurred
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.lungs import lung_mask
from cvsct.evaluation.image.tissues import tissue_masks
from cvsct.methods.bands import Bands
from cvsct.methods.base import RunOptions, TrainingRequest
from cvsct.methods.registry import find_method

PAIRS = (
    "kernel", "dose", "vendor", "reconstruction", "thickness", "tone", "denoised-quiet-fbp-noisy",
    "paper",
)  # fmt: skip
BANDS = Bands(5, 0.15)
"""Bands around 0, .15, .3, .45 and from .6 cycles/mm; the three in the middle are reported."""
EDGE_PX = 3
"""Voxels around bone that count as bone: its edges are what sharpness changes."""
COLUMNS = {
    "across": ("ccc_across", 3), "within": ("ccc_within", 2), "PSNR": ("psnr_db", 1),
    "noise": ("noise", 2), "lung edge": ("lung_mtf50", 2),
    "lung .15 .3 .45": ("lung", 2), "soft .15 .3 .45": ("soft", 2), "bone .15 .3 .45": ("bone", 2),
    "HU lung": ("lung_hu", 1), "HU soft": ("soft_hu", 1), "HU bone": ("bone_hu", 1),
    "fit s": ("training_s", 0), "slice s": ("slice_s", 2),
}  # fmt: skip
Masks = dict[str, Bool[np.ndarray, "slices rows columns"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--method", default="spectrum")
    parser.add_argument("--label", help="name in the table; the method's unless given")
    parser.add_argument("--pairs", nargs="+", default=PAIRS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rois", type=int, default=120)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--only", nargs="+", metavar="LABEL")
    parser.add_argument("--column", choices=list(COLUMNS))
    parser.add_argument("--less", metavar="LABEL")
    args = parser.parse_args()
    if args.table:
        rows = [json.loads(line) for line in args.table.read_text().splitlines()]
        rows = [row for row in rows if not args.only or row["label"] in args.only]
        if args.less and not args.column:
            parser.error("--less: give --column")
        if args.less:
            print(differences(rows, args.column, args.less))
        else:
            print(side_by_side(rows, args.column) if args.column else markdown(rows))
        return
    if not (args.scans and args.out):
        parser.error("give --scans and --out, or --table")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
    known = {(row["label"], row["pair"], row["seed"]) for row in map(json.loads, text.splitlines())}
    settings, own_label = parse_settings(args.set), args.label or args.method
    for pair in args.pairs:
        for seed in args.seeds:
            labels = [
                label for label in ("input", "repeat", own_label)
                if (label, pair, seed) not in known
            ]  # fmt: skip
            if not labels:
                continue
            folder = args.scans / f"{pair}-{seed}" / "scans"
            cvsct.simulate(folder, scale="demo", parts=[f"pairs/{pair}"], seed=seed)
            for row in measure(folder / "pairs" / pair, args.method, labels, settings, args.rois):
                line = json.dumps({"pair": pair, "seed": seed, **row})
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
                print(shown([json.loads(line)]), flush=True)


def measure(
    data: Path, method: str, labels: list[str], settings: dict[str, Any], rois: int
) -> list[dict[str, Any]]:
    """Rows of both directions of a pair."""
    sides = sorted(folder.name for folder in (data / "test").iterdir() if folder.is_dir())
    test, repeat = (
        [by_patient(data / part / side) for side in sides] for part in ("test", "repeat")
    )
    row = find_method(method)
    bundle, seconds = None, 0.0
    if set(labels) - {"input", "repeat"}:
        train = [by_patient(data / "train" / side) for side in sides]
        begun = time.process_time()
        request = TrainingRequest(method, Path(), {**row.settings, **settings})
        bundle = row.train(*train, request)
        seconds = time.process_time() - begun
    rows = []
    for way in (0, 1):
        source, target, again = test[way], test[1 - way], repeat[1 - way]
        for label in labels:
            cost = {}
            if label == "repeat":
                made = again
            elif label == "input" or bundle is None:
                made = source
            else:
                mapping = row.load(bundle, "b2a" if way else "a2b", RunOptions())
                begun = time.process_time()
                made = [volume.with_hu(np.rint(mapping(volume))) for volume in source]
                n_slices = sum(len(volume.hu) for volume in source)
                cost = {
                    "training_s": round(seconds, 1),
                    "slice_s": round((time.process_time() - begun) / n_slices, 4),
                }
            found = measured(made, target, rois) | power_by_tissue(made, target, again)
            direction = f"{sides[way]} → {sides[1 - way]}"
            rows.append({"label": label, "direction": direction, **cost, **found})
    return rows


def power_by_tissue(
    made: list[CTVolume], target: list[CTVolume], again: list[CTVolume]
) -> dict[str, list[float]]:
    """Roots of the ratios of shared and of all power, by tissue and band."""
    sums: dict[str, Float[np.ndarray, "bands four"]] = {}
    for a, b, c in zip(made, target, again, strict=True):
        masks = masks_of(b)
        bands = (BANDS.split(v, np.array([0.0, 1.0]), np.zeros(2)) for v in (a, b, c))
        for index, (of_a, of_b, of_c) in enumerate(zip(*bands, strict=True)):
            for tissue, mask in masks.items():
                inside = mask[index]
                total = sums.setdefault(tissue, np.zeros((BANDS.count, 4)))
                for band in range(BANDS.count):
                    x, y, z = (part[band][inside].astype(float) for part in (of_a, of_b, of_c))
                    total[band] += x @ z, y @ z, x @ x, y @ y
    found = {}
    for tissue, total in sums.items():
        shared, all_power = total[:, 0] / total[:, 1], total[:, 2] / total[:, 3]
        for name, ratio in ((tissue, shared), (f"{tissue}_energy", all_power)):
            found[name] = [round(float(np.sqrt(max(x, 0))), 4) for x in ratio[1:4]]
    return found


def masks_of(target: CTVolume) -> Masks:
    """Lungs with vessels, soft tissue, and bone with its edges."""
    bone = ndimage.binary_opening(blurred(target.hu) >= BONE.low_hu, np.ones((1, 3, 3)))
    grown = ndimage.binary_dilation(bone, np.ones((1, 3, 3)), iterations=EDGE_PX)
    lung = lung_mask(target).mask
    return {"lung": lung, "soft": tissue_masks(target.hu)["soft"], "bone": grown & ~lung}


def shown(rows: list[dict[str, Any]]) -> str:
    """One line of the table: means over rows, and the range of concordance."""
    first = rows[0]
    cells = [first["pair"], first["direction"], first["label"], str(len(rows))]
    cells += [cell(rows, name, with_range=name == "across") for name in COLUMNS]
    return f"| {' | '.join(cells)} |"


def cell(rows: list[dict[str, Any]], column: str, with_range: bool) -> str:
    """Mean of a column over rows, and its range where there are several."""
    key, digits = COLUMNS[column]
    values = np.array([np.atleast_1d(row[key]) for row in rows if row.get(key) is not None])
    if not len(values):
        return "–"
    text = " ".join(f"{value:.{digits}f}" for value in values.mean(axis=0))
    if with_range and len(values) > 1 and values.shape[1] == 1:
        text += f" ({values.min():.{digits}f}–{values.max():.{digits}f})"
    return text


def markdown(rows: list[dict[str, Any]]) -> str:
    """Table of all pairs, directions and labels."""
    heads = ["pair", "direction", "filter", "draws", *COLUMNS]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for way in grouped(rows, "pair", "direction").values():
        lines += [shown(own) for own in grouped(way, "label").values()]
    return "\n".join(lines)


def side_by_side(rows: list[dict[str, Any]], column: str) -> str:
    """Table of one column: pairs and directions below, labels beside each other."""
    labels = list(grouped(rows, "label"))
    heads = ["pair", "direction", "draws", *(str(label) for (label,) in labels)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for (pair, direction), way in grouped(rows, "pair", "direction").items():
        of = grouped(way, "label")
        draws = len({row["seed"] for row in way})
        cells = [cell(of.get(label, []), column, with_range=True) for label in labels]
        lines.append(f"| {' | '.join([pair, direction, str(draws), *cells])} |")
    return "\n".join(lines)


def differences(rows: list[dict[str, Any]], column: str, less: str) -> str:
    """Table of a column's differences from those of one label, for the draws that both have."""
    key, digits = COLUMNS[column]
    lines = ["| pair | direction | filter | by draw | mean |", "|---|---|---|---|---|"]
    for (pair, direction), way in grouped(rows, "pair", "direction").items():
        of = {(row["label"], row["seed"]): row[key] for row in way if row.get(key) is not None}
        for label in dict.fromkeys(name for name, _ in of if name != less):
            found = [
                of[label, seed] - of[less, seed]
                for name, seed in of if name == label and (less, seed) in of
            ]  # fmt: skip
            if found:
                about = summary(found)
                half = f" ± {about['high'] - about['mean']:.{digits}f}" if len(found) > 1 else ""
                values = ", ".join(f"{value:.{digits}f}" for value in found)
                cells = (pair, direction, label, values, f"{about['mean']:.{digits}f}{half}")
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def grouped(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows by the values of some keys, in the order of their first."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


if __name__ == "__main__":
    main()
