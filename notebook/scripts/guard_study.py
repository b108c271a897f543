"""What the slice guard sees: failures planted in a model's good output, and its false alarms.

    python notebook/scripts/guard_study.py --data DATA --model MODEL --out DIR

DATA holds scans of other bodies than the model learned from: folders of the source's and of the
target's scanner under `paired/` or `test/` of what `cvsct simulate` writes (`--roles`; give
`--data` again for more). Each slice is judged by limits set from the other folds' bodies.
Harmonised slices are kept in DIR/cache, so that a second run measures only. Tables come as
Markdown, and in DIR/tables.md; every figure in DIR/study.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from cvsct.core.files import write_atomic, write_json
from cvsct.core.seeding import random_stream
from cvsct.guard.output_check import (
    SliceChange,
    SliceLimits,
    judge_slice,
    learn_slice_limits,
    measure_change,
)
from guard_failures import (
    Failure,
    Where,
    blurred,
    grid,
    itself,
    lost_vessel,
    moved,
    nodule,
    noisier,
    nothing,
    sharpened,
    shift,
    warped,
)
from guard_material import Measured, Slice, code_hash, harmonised

DIAMETERS_MM = {"lung": (3, 4, 6, 8, 10, 15), "tissue": (4, 6, 8, 10, 15)}
CONTRASTS_HU = {"lung": (50, 100, 200, 400, 800), "tissue": (20, 40, 80, 160)}
FOLDS = 4


def folds_of(scans: Sequence[Slice]) -> list[int]:
    """The fold of each slice, by body."""
    bodies = sorted({one.body for one in scans})
    return [bodies.index(one.body) % FOLDS for one in scans]


def limits_by_fold(changes: Sequence[SliceChange], folds: Sequence[int]) -> list[SliceLimits]:
    """For each fold the limits that the others set."""
    return [
        learn_slice_limits(
            [change for change, fold in zip(changes, folds, strict=True) if fold != k]
        )
        for k in range(max(folds) + 1)
    ]


def wilson(found: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927)."""
    middle = (found + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(found * (n - found) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Rate:
    """How many of the planted failures were found."""

    found: int
    n: int

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.found + other.found, self.n + other.n)

    def __str__(self) -> str:
        if self.n == 0:
            return "–"
        low, high = wilson(self.found, self.n)
        return f"{100 * self.found / self.n:.0f} ({100 * low:.0f}–{100 * high:.0f})"


def over(change: SliceChange, limits: SliceLimits) -> list[str]:
    """The figures that exceed their limits."""
    names = [field.name for field in fields(SliceChange)]
    return [name for name in names if not abs(getattr(change, name)) <= getattr(limits, name)]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [list(map(str, row)) for row in (head, *rows)]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], "|---" * len(head) + "|", *text[1:]])


def nodule_table(
    judge: Callable[[Failure, str, slice], Rate], where: Where
) -> tuple[str, dict[str, object]]:
    """Detection of nodules by diameter and contrast, invented and erased in turn."""
    record: dict[str, object] = {}
    rows = []
    sums = {True: Rate(0, 0), False: Rate(0, 0)}
    for diameter in DIAMETERS_MM[where]:
        cells = []
        for contrast in CONTRASTS_HU[where]:
            both = Rate(0, 0)
            for erased in (False, True):
                name = f"{where} {diameter} mm {contrast} HU {'erased' if erased else 'invented'}"
                failure = partial(nodule, diameter_mm=diameter, contrast_hu=contrast)
                failure = partial(failure, where=where, erased=erased)
                rate = judge(failure, name, slice(int(erased), None, 2))
                record[name] = asdict(rate)
                both, sums[erased] = both + rate, sums[erased] + rate
            cells.append(both)
        rows.append([f"{diameter} mm", *cells])
    heads = [f"{contrast} HU" for contrast in CONTRASTS_HU[where]]
    text = table([f"in {where}", *heads], rows)
    return f"{text}\n\nInvented {sums[False]} %, erased {sums[True]} %.", record


OTHER: tuple[tuple[str, Sequence[tuple[str, Failure]]], ...] = (
    ("all CT numbers shifted", [(f"{hu} HU", partial(shift, hu=hu)) for hu in (2, 5, 10, 20)]),
    (
        "an organ of 40 mm shifted",
        [(f"{hu} HU", partial(shift, hu=hu, where="organ")) for hu in (2, 5, 10, 20)],
    ),
    ("slice displaced", [(f"{px:g} px", partial(moved, pixels=px)) for px in (0.25, 0.5, 1, 2)]),
    ("local warp", [(f"{px:g} px", partial(warped, pixels=px)) for px in (0.5, 1, 2, 4)]),
    (
        "checkerboard of 2 px",
        [(f"{hu} HU", partial(grid, hu=hu, period_px=2)) for hu in (2, 5, 10, 20)],
    ),
    (
        "checkerboard of 4 px",
        [(f"{hu} HU", partial(grid, hu=hu, period_px=4)) for hu in (2, 5, 10, 20)],
    ),
    (
        "vessel of the lung lost, by its width",
        [
            (f"{low}–{high} mm", partial(lost_vessel, low_mm=low, high_mm=high))
            for low, high in ((1.5, 3), (3, 5), (5, 8), (8, 14))
        ],
    ),
    (
        "no failure: blurred further (sigma)",
        [(f"{mm:g} mm", partial(blurred, sigma_mm=mm)) for mm in (0.2, 0.3, 0.4, 0.6)],
    ),
    (
        "no failure: sharpened further",
        [(f"x {amount:g}", partial(sharpened, amount=amount)) for amount in (0.25, 0.5, 1, 2)],
    ),
    ("no failure: more noise", [(f"{hu} HU", partial(noisier, hu=hu)) for hu in (5, 10, 20, 40)]),
)


def other_table(judge: Callable[[Failure, str, slice], Rate]) -> tuple[str, dict[str, object]]:
    """Detection of all other failures; and what is none."""
    record: dict[str, object] = {}
    rows = []
    for title, cases in OTHER:
        cells = []
        for size, failure in cases:
            rate = judge(failure, f"{title} {size}", slice(None))
            record[f"{title} {size}"] = asdict(rate)
            cells.append(f"{size}: {rate}")
        rows.append([title, *cells])
    return table(["planted", "", "", "", ""], rows), record


def figures_table(
    changes: Sequence[SliceChange], paired: Sequence[SliceChange], limits: SliceLimits
) -> str:
    """What good output reads, beside the limits that all of it sets."""
    rows = []
    for field in fields(SliceChange):
        cells = [field.name]
        for side in (changes, paired):
            values = np.abs([getattr(one, field.name) for one in side])
            found = (
                (np.median(values), np.quantile(values, 0.95), values.max()) if len(values) else ()
            )
            cells.append(" / ".join(f"{value:.2f}" for value in found) or "–")
        rows.append([*cells, f"{getattr(limits, field.name):.2f}"])
    return table(["figure", "good output", "the target itself", "limit"], rows)


def few_slices(scans: Sequence[Slice], changes: Sequence[SliceChange]) -> str:
    """False alarms when few slices set the limits, drawn 200 times; judged on other bodies."""
    bodies = sorted({one.body for one in scans})
    of_body = {
        name: [c for c, one in zip(changes, scans, strict=True) if one.body == name]
        for name in bodies
    }
    rows = []
    for count, each in ((1, 4), (1, 8), (2, 4), (4, 3), (6, 2), (6, 8)):
        alarms = Rate(0, 0)
        for draw in range(200 if count < len(bodies) else 0):
            rng = random_stream(0, "few slices", str(count), str(each), str(draw))
            chosen = set(rng.choice(bodies, count, replace=False))
            own = [
                of_body[name][k]
                for name in sorted(chosen)
                for k in rng.choice(len(of_body[name]), min(each, len(of_body[name])), False)
            ]
            limits = learn_slice_limits(own)
            rest = [one for name in bodies if name not in chosen for one in of_body[name]]
            alarms += Rate(sum(bool(judge_slice(one, limits)) for one in rest), len(rest))
        if alarms.n:
            rows.append([f"{count} x {each}", f"{100 * alarms.found / alarms.n:.1f} %"])
    return table(["bodies x slices that set the limits", "false alarms per slice"], rows)


def study(args: argparse.Namespace, reverse: bool) -> tuple[str, dict[str, object]]:
    """All tables of one direction, and their figures."""
    scans = harmonised(args, reverse)
    folds = folds_of(scans)
    measured = Measured(args.out / "cache" / f"{code_hash()}-{int(reverse)}.json")
    start = time.process_time()
    for one in scans[:10]:
        measure_change(one.good.before, one.good.after, one.good.pixel_mm)
    seconds = (time.process_time() - start) / len(scans[:10])

    def read(name: str, failure: Failure) -> list[SliceChange]:
        return list(filter(None, measured.changes(name, scans, range(len(scans)), failure)))

    changes, target = read("nothing", nothing), read("target", itself)
    limits = limits_by_fold(changes, folds)
    if args.highest:
        limits = [SliceLimits.highest()] * len(limits)
    alarms = [over(c, limits[fold]) for c, fold in zip(changes, folds, strict=True)]
    false = Rate(sum(map(bool, alarms)), len(alarms))
    parts = [
        f"### {'B to A' if reverse else 'A to B'}: {len(scans)} slices, "
        f"{len({o.body for o in scans})} bodies, {FOLDS} folds",
        f"False alarms: {false.found} of {false.n} slices, {false} %"
        + (f" ({sorted({name for one in alarms for name in one})})" if false.found else ""),
        f"CPU time: {1e3 * seconds:.0f} ms a slice of {scans[0].good.before.shape}.",
        "Good output, median / 95 % / highest:",
        figures_table(changes, target, learn_slice_limits(changes)),
        few_slices(scans, changes),
    ]
    record: dict[str, object] = {
        "changes": [asdict(change) for change in changes],
        "target": [asdict(change) for change in target],
        "false_alarms": asdict(false),
        "seconds": seconds,
    }
    kept = [k for k in range(len(scans)) if not alarms[k]][:: args.plant_every]

    def judge(failure: Failure, name: str, part: slice) -> Rate:
        chosen = kept[part]
        found = measured.changes(name, scans, chosen, failure)
        judged = [
            bool(judge_slice(change, limits[folds[k]]))
            for k, change in zip(chosen, found, strict=True)
            if change is not None
        ]
        return Rate(sum(judged), len(judged))

    for where in CONTRASTS_HU:
        if where in args.skip:
            continue
        text, figures = nodule_table(judge, where)
        parts += [f"Detected, % (95 % interval), nodules in {where}:", text]
        record |= figures
    if "other" not in args.skip:
        text, figures = other_table(judge)
        parts += ["Detected, % (95 % interval), other failures, and what is none:", text]
        record |= figures
    return "\n\n".join(parts), record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--roles", nargs="+", default=["paired", "test"])
    parser.add_argument("--every", type=int, default=1, help="only each Nth slice of a series")
    parser.add_argument("--plant-every", type=int, default=3, help="plant in each Nth good slice")
    parser.add_argument("--skip", nargs="*", default=[], help="lung, tissue, other")
    parser.add_argument("--highest", action="store_true", help="limits without any image")
    parser.add_argument("--one-way", choices=["a2b", "b2a"], help="this direction alone")
    args = parser.parse_args()
    texts, record = [], {}
    for reverse in (False, True):
        if args.one_way == ("a2b" if reverse else "b2a"):
            continue
        text, record["b2a" if reverse else "a2b"] = study(args, reverse)
        print(text, end="\n\n", flush=True)
        texts.append(text)
    write_atomic(args.out / "tables.md", "\n\n".join(texts) + "\n")
    write_json(args.out / "study.json", record)


if __name__ == "__main__":
    main()
