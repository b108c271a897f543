"""What the slice guard sees: failures planted in a model's good output, and its false alarms.

    python scripts/guard_study.py --data DATA --model MODEL --out DIR

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

from cvsct.guard.slices import SliceChange, SliceLimits, judge_slice, limits_of, measure_change
from cvsct.io.dicom import find_series, read_series
from cvsct.methods import find_method
from cvsct.models.bundle import Bundle
from cvsct.runs import random_stream, write_atomic, write_json
from guard_failures import (
    Failure,
    Good,
    blurred,
    grid,
    lost_vessel,
    moved,
    nodule,
    noisier,
    sharpened,
    shift,
    warped,
)

DIAMETERS_MM = (3, 4, 6, 8, 10, 15)
CONTRASTS_HU = {"lung": (50, 100, 200, 400, 800), "tissue": (20, 40, 80, 160)}
FOLDS = 4


@dataclass(frozen=True)
class Slice:
    """A slice before and after the model.

    Args:
        body: who is shown; all slices of a body lie in one fold.
        paired: what the target's scanner shows there, where it scanned the body too.
    """

    body: str
    good: Good
    paired: np.ndarray | None


def harmonised(args: argparse.Namespace, reverse: bool) -> list[Slice]:
    """All slices of one direction's source, from the cache where they are there."""
    bundle = Bundle.read(args.model)
    mapping = None
    found = []
    for data in args.data:
        for role in args.roles:
            sides = sorted(path for path in (data / role).iterdir() if path.is_dir())
            source, target = sides[::-1] if reverse else sides
            scanned = {_body(series): series for series in sorted(target.iterdir())}
            for folder in sorted(source.iterdir()):
                (series,) = find_series(folder)
                volume = read_series(series)
                cache = args.out / "cache" / f"{bundle.sha256[:12]}-{series.series_uid[-20:]}.npy"
                if not cache.exists():
                    if mapping is None:
                        mapping = find_method(bundle.method).load("loader")(bundle, reverse, "auto")
                    cache.parent.mkdir(parents=True, exist_ok=True)
                    np.save(cache, mapping(volume))
                after = np.load(cache)
                name = _body(folder)
                other = read_series(*find_series(scanned[name])).hu if name in scanned else None
                step = slice(None, None, args.every)
                for index in range(len(volume.hu))[step]:
                    good = Good.of(
                        volume.hu[index],
                        after[index],
                        volume.pixel_mm,
                        volume.geometry.thickness_mm,
                    )
                    paired = None if other is None else other[index]
                    found.append(Slice(f"{data.name}-{name}", good, paired))
    return found


def _body(folder: Path) -> str:
    return folder.name.partition("_")[0]


def folds_of(slices: Sequence[Slice]) -> list[int]:
    """The fold of each slice, by body."""
    bodies = sorted({one.body for one in slices})
    return [bodies.index(one.body) % FOLDS for one in slices]


def limits_by_fold(changes: Sequence[SliceChange], folds: Sequence[int]) -> list[SliceLimits]:
    """For each fold the limits that the others set."""
    return [
        limits_of([change for change, fold in zip(changes, folds, strict=True) if fold != k])
        for k in range(max(folds) + 1)
    ]


def wilson(found: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927)."""
    middle = (found + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(found * (n - found) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass
class Rate:
    """How many of the planted were found, and by which figures."""

    found: int = 0
    n: int = 0
    by: dict[str, int] | None = None

    def __str__(self) -> str:
        if self.n == 0:
            return "–"
        low, high = wilson(self.found, self.n)
        return f"{100 * self.found / self.n:.0f} ({100 * low:.0f}–{100 * high:.0f})"


def judged(
    slices: Sequence[Slice],
    folds: Sequence[int],
    limits: Sequence[SliceLimits],
    failure: Failure,
    name: str,
    times: int = 1,
) -> Rate:
    """Plant one failure in each slice, and judge it by its fold's limits."""
    rate = Rate(by={})
    for index, (one, fold) in enumerate(zip(slices, folds, strict=True)):
        for turn in range(times):
            made = failure(one.good, random_stream(0, name, str(index), str(turn)))
            if made is None:
                continue
            change = measure_change(*made, one.good.pixel_mm)
            exceeded = over(change, limits[fold])
            rate.n += 1
            rate.found += bool(judge_slice(change, limits[fold]))
            for field in exceeded:
                rate.by[field] = rate.by.get(field, 0) + 1
    return rate


def over(change: SliceChange, limits: SliceLimits) -> list[str]:
    """The figures that exceed their limits."""
    names = [field.name for field in fields(SliceChange)]
    return [name for name in names if not abs(getattr(change, name)) <= getattr(limits, name)]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [list(map(str, row)) for row in (head, *rows)]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], "|---" * len(head) + "|", *text[1:]])


def nodule_tables(
    judge: Callable[[Failure, str], Rate], where: str
) -> tuple[str, dict[str, object]]:
    """Detection of invented and of erased nodules by diameter and contrast."""
    record: dict[str, object] = {}
    rows = []
    for diameter in DIAMETERS_MM:
        for erased in (False, True):
            cells = []
            for contrast in CONTRASTS_HU[where]:
                name = f"{where} {diameter} mm {contrast} HU {'erased' if erased else 'invented'}"
                rate = judge(
                    partial(
                        nodule,
                        diameter_mm=diameter,
                        contrast_hu=contrast,
                        where=where,
                        erased=erased,
                    ),
                    name,
                )
                record[name] = asdict(rate)
                cells.append(rate)
            rows.append([f"{diameter} mm", "erased" if erased else "invented", *cells])
    heads = [f"{contrast} HU" for contrast in CONTRASTS_HU[where]]
    return table([f"in {where}", "", *heads], rows), record


OTHER: tuple[tuple[str, Sequence[tuple[str, Failure]]], ...] = (
    ("all CT numbers shifted", [(f"{hu} HU", partial(shift, hu=hu)) for hu in (2, 5, 10, 20)]),
    (
        "soft tissue alone shifted",
        [(f"{hu} HU", partial(shift, hu=hu, where="tissue")) for hu in (2, 5, 10, 20)],
    ),
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
    (
        "no failure: more noise",
        [(f"{hu} HU", partial(noisier, hu=hu)) for hu in (5, 10, 20, 40)],
    ),
)


def other_table(judge: Callable[[Failure, str], Rate]) -> tuple[str, dict[str, object]]:
    """Detection of all other failures; and what is none."""
    record: dict[str, object] = {}
    rows = []
    for title, cases in OTHER:
        cells = []
        for size, failure in cases:
            rate = judge(failure, f"{title} {size}")
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


def few_bodies(slices: Sequence[Slice], changes: Sequence[SliceChange]) -> str:
    """False alarms when limits are set from few bodies, drawn 100 times; judged on all others."""
    bodies = sorted({one.body for one in slices})
    rows = []
    for count in (1, 2, 3, 4, 6, 8):
        if count >= len(bodies):
            break
        alarms = judged_slices = 0
        for draw in range(100):
            rng = random_stream(0, "few bodies", str(count), str(draw))
            chosen = set(rng.choice(bodies, count, replace=False))
            own = [c for c, one in zip(changes, slices, strict=True) if one.body in chosen]
            rest = [c for c, one in zip(changes, slices, strict=True) if one.body not in chosen]
            limits = limits_of(own)
            alarms += sum(bool(judge_slice(change, limits)) for change in rest)
            judged_slices += len(rest)
        rows.append([count, f"{100 * alarms / judged_slices:.1f} %"])
    return table(["bodies that set the limits", "false alarms per slice"], rows)


def study(args: argparse.Namespace, reverse: bool) -> tuple[str, dict[str, object]]:
    """All tables of one direction, and their figures."""
    slices = harmonised(args, reverse)
    folds = folds_of(slices)
    start = time.perf_counter()
    changes = [measure_change(o.good.before, o.good.after, o.good.pixel_mm) for o in slices]
    seconds = (time.perf_counter() - start) / len(slices)
    limits = limits_by_fold(changes, folds)
    alarms = [over(c, limits[fold]) for c, fold in zip(changes, folds, strict=True)]
    paired = [
        measure_change(o.good.before, o.paired, o.good.pixel_mm)
        for o in slices
        if o.paired is not None
    ]
    false = Rate(sum(map(bool, alarms)), len(alarms))
    parts = [
        f"### {'B to A' if reverse else 'A to B'}: {len(slices)} slices, "
        f"{len({o.body for o in slices})} bodies, {FOLDS} folds",
        f"False alarms: {false.found} of {false.n} slices, {false} %"
        + (f" ({sorted({name for one in alarms for name in one})})" if false.found else ""),
        f"Time: {1e3 * seconds:.0f} ms a slice of {slices[0].good.before.shape}.",
        "Good output, median / 95 % / highest:",
        figures_table(changes, paired, limits_of(changes)),
        few_bodies(slices, changes),
    ]
    record: dict[str, object] = {
        "changes": [asdict(change) for change in changes],
        "paired": [asdict(change) for change in paired],
        "false_alarms": asdict(false),
        "seconds": seconds,
    }
    kept = [k for k in range(len(slices)) if not alarms[k]][:: args.plant_every]

    def judge(failure: Failure, name: str) -> Rate:
        some, their = [slices[k] for k in kept], [folds[k] for k in kept]
        return judged(some, their, limits, failure, name)

    for where in CONTRASTS_HU:
        if where in args.skip:
            continue
        text, figures = nodule_tables(judge, where)
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
    parser.add_argument("--plant-every", type=int, default=2, help="plant in each Nth good slice")
    parser.add_argument("--skip", nargs="*", default=[], help="lung, tissue, other")
    parser.add_argument("--one-way", action="store_true")
    args = parser.parse_args()
    texts, record = [], {}
    for reverse in (False,) if args.one_way else (False, True):
        text, record["b2a" if reverse else "a2b"] = study(args, reverse)
        print(text, end="\n\n", flush=True)
        texts.append(text)
    write_atomic(args.out / "tables.md", "\n\n".join(texts) + "\n")
    write_json(args.out / "study.json", record)


if __name__ == "__main__":
    main()
