"""Methods side by side: the paper's Tables 2 and 3 with ours, and which method is worth its cost.

Works on what evaluations left in `metrics.json`, so that a benchmark can be spread over days and
its tables made anew at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvsct.evaluation.paper import NOTES, QUALITY, TABLE_2, TABLE_3, Printed
from cvsct.evaluation.radiomics import CLASSES
from cvsct.evaluation.tables import Table

INPUT, CEILING, COMBAT = "input", "repeat scan", "ComBat (features only)"
WAYS = ("a2b", "b2a")
"""Folders of the two directions."""

CLASS_TITLES = ("First order", "GLCM", "GLDM", "GLRLM", "GLSZM", "NGTDM")
NOT_THERE = "–"


@dataclass(frozen=True)
class Result:
    """One method's evaluation in one direction.

    Args:
        direction: place in `Benchmark.directions`.
        metrics: what `metrics.json` holds.
        fit_s: seconds the training took; None, like the others, where there was none.
        slices_per_s: of harmonising, reading and writing included.
        model_mb: size of the model's files.
    """

    method: str
    seed: int
    direction: int
    metrics: Mapping[str, Any]
    fit_s: float | None = None
    slices_per_s: float | None = None
    model_mb: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """All results of one data set.

    Args:
        directions: how each is called, such as `GE to Siemens`; two.
        budget: what was given to each training, in words.
        like_the_paper: whether the directions are the paper's, so that its figures belong beside.
    """

    directions: tuple[str, str]
    results: tuple[Result, ...]
    budget: str
    like_the_paper: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """In order of their first result, the input aside."""
        return tuple(dict.fromkeys(one.method for one in self.results if one.method != INPUT))

    def of(self, method: str, direction: int) -> list[Mapping[str, Any]]:
        """Metrics of a method, one a seed; the input's and the ceiling's are in any result."""
        own = [one for one in self.results if (one.method, one.direction) == (method, direction)]
        if method in (INPUT, CEILING):
            key = "input" if method == INPUT else "repeat"
            every = [one.metrics.get(key) for one in self.results if one.direction == direction]
            return [each for each in every if each][:1]
        return [one.metrics for one in own]


def tables(benchmark: Benchmark) -> list[Table]:
    """The paper's two tables, then what it does not report."""
    return [table_2(benchmark), table_3(benchmark), *(ranking(benchmark, i) for i in (0, 1))]


def table_2(benchmark: Benchmark) -> Table:
    """Concordance within regions by class, one block a direction, the paper's rows beside ours."""
    rows: list[tuple[str, ...]] = []
    marked = set()
    for number, direction in enumerate(benchmark.directions):
        rows.append((f"{direction} conversion", *[""] * len(CLASSES)))
        marked.add(len(rows) - 1)
        for method in _rows_of(benchmark):
            found = benchmark.of(method, number)
            if found:
                cells = [_spread(found, "ccc_within", name, 2) for name in CLASSES]
                rows.append((method, *cells))
            if benchmark.like_the_paper and method in TABLE_2:
                printed = TABLE_2[method][number]
                rows.append((f"{method}, the paper", *(_printed(printed[n]) for n in CLASSES)))
                marked.add(len(rows) - 1)
    return Table(
        key="table2",
        title="Table 2: concordance of radiomic features, within regions",
        caption=(
            "Lin's CCC over the features of a class in one region; mean ± sd over "
            f"{_counts(benchmark)}{_seeds(benchmark)}.{_paper_caption(benchmark)}"
        ),
        head=("Feature class", *CLASS_TITLES),
        rows=tuple(rows),
        marked=frozenset(marked),
    )


def table_3(benchmark: Benchmark) -> Table:
    """PSNR, SSIM and NCC, both directions side by side."""
    rows: list[tuple[str, ...]] = []
    marked = set()
    digits = {"psnr_db": 2, "ssim": 3, "ncc": 4}
    for method in _rows_of(benchmark):
        found = [benchmark.of(method, number) for number in (0, 1)]
        if any(found):
            cells = [
                _spread(metrics, name, "", digits[name]) for metrics in found for name in QUALITY
            ]
            rows.append((method, *cells))
        if benchmark.like_the_paper and method in TABLE_3:
            printed = [_printed(TABLE_3[method][i][name]) for i in (0, 1) for name in QUALITY]
            rows.append((f"{method}, the paper", *printed))
            marked.add(len(rows) - 1)
    return Table(
        key="table3",
        title="Table 3: image quality",
        caption=(
            f"On [0, 1] of the HU window; mean ± sd over {_counts(benchmark, 'n_slices')}"
            f"{_seeds(benchmark)}.{_paper_caption(benchmark)}"
        ),
        head=(
            "Metric",
            *(
                f"{direction}: {name}"
                for direction in benchmark.directions
                for name in ("PSNR (dB)", "SSIM", "NCC")
            ),
        ),
        rows=tuple(rows),
        marked=frozenset(marked),
    )


def ranking(benchmark: Benchmark, direction: int) -> Table:
    """Every method in order of its concordance across regions, with what it costs."""
    scored = sorted(
        ((name, benchmark.of(name, direction)) for name in _rows_of(benchmark)),
        key=lambda one: -(_mean(one[1], _at("ccc_across_mean")) or -np.inf),
    )
    rows = []
    for name, found in scored:
        if not found:
            continue
        own = [r for r in benchmark.results if (r.method, r.direction) == (name, direction)]
        rows.append(
            (
                name,
                _interval(found),
                _number(_mean(found, _within_mean), 2),
                *(_percent(_mean(found, _share(i))) for i in (0, 1)),
                _percent(_mean(found, _at("way_to_ceiling", "share"))),
                _number(_mean(found, _at("psnr_db")), 1),
                _signed(_mean(found, _at("hu_bias"))),
                _cost([r.fit_s for r in own], ".0f"),
                _cost([r.slices_per_s for r in own], ".1f"),
                _cost([r.model_mb for r in own], ".2g"),
            )
        )
    marked = frozenset(i for i, row in enumerate(rows) if row[0] in (INPUT, CEILING))
    return Table(
        key=f"ranking{direction + 1}",
        title=f"Which method is worth its cost: {benchmark.directions[direction]}",
        caption=(
            "In order of the mean over six classes of the CCC across regions, with its 95 % "
            f"interval over {_counts(benchmark)}; with several seeds the mean of each and their "
            f"range. {benchmark.budget} Times are of this machine."
        ),
        head=(
            "Method",
            "CCC across",
            "CCC within",
            "CCC ≥ 0.85",
            "CCC ≥ 0.90",
            "way to repeat scan",
            "PSNR (dB)",
            "HU bias",
            "fit (s)",
            "slices/s",
            "model (MB)",
        ),
        rows=tuple(rows),
        marked=marked,
    )


def _rows_of(benchmark: Benchmark) -> tuple[str, ...]:
    return (INPUT, *benchmark.methods, CEILING)


def _at(*path: str) -> Callable[[Mapping[str, Any]], Any]:
    """Looks a figure up; None where it is not there."""

    def look(metrics: Mapping[str, Any]) -> Any:
        found: Any = metrics
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return look


def _share(place: int) -> Callable[[Mapping[str, Any]], Any]:
    def look(metrics: Mapping[str, Any]) -> Any:
        shares = metrics.get("shares") or []
        return shares[place]["share"] if place < len(shares) else None

    return look


def _within_mean(metrics: Mapping[str, Any]) -> float | None:
    values = [v for v in (metrics.get("ccc_within") or {}).values() if v is not None]
    return float(np.mean(values)) if values else None


def _mean(found: Sequence[Mapping[str, Any]], look: Callable[..., Any]) -> float | None:
    """Mean over seeds of those that have it."""
    values = [value for metrics in found if (value := look(metrics)) is not None]
    return float(np.mean(values)) if values else None


def _spread(found: Sequence[Mapping[str, Any]], figure: str, part: str, digits: int) -> str:
    """Mean over seeds ± root mean square of each seed's own deviation.

    Args:
        part: which of a figure that is given by class; empty for one that is not.
    """
    below = (part,) if part else ()
    mean = _mean(found, _at(figure, *below))
    if mean is None:
        return NOT_THERE
    deviations = [value for m in found if (value := _at(f"{figure}_sd", *below)(m)) is not None]
    sd = f" ± {np.sqrt(np.mean(np.square(deviations))):.{digits}f}" if deviations else ""
    return f"{mean:.{digits}f}{sd}"


def _interval(found: Sequence[Mapping[str, Any]]) -> str:
    """Mean concordance: the interval of the one seed, or the range of several."""
    values = [m["ccc_across_mean"] for m in found if m.get("ccc_across_mean") is not None]
    if not values:
        return NOT_THERE
    if len(values) > 1:
        return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f}, n = {len(values)})"
    low, high = found[0].get("ccc_across_mean_interval") or (None, None)
    return f"{values[0]:.3f}" + (f" ({low:.2f} to {high:.2f})" if low is not None else "")


def _counts(benchmark: Benchmark, key: str = "n_rois") -> str:
    """Over how many regions or slices, or from how many to how many."""
    counts = {one.metrics[key] for one in benchmark.results if one.metrics.get(key)}
    ends = sorted({min(counts), max(counts)}) if counts else [0]
    return f"n = {'–'.join(map(str, ends))} {'regions' if key == 'n_rois' else 'slices'}"


def _seeds(benchmark: Benchmark) -> str:
    seeds = len({one.seed for one in benchmark.results})
    return f", mean of up to {seeds} trainings" if seeds > 1 else ""


def _paper_caption(benchmark: Benchmark) -> str:
    if not benchmark.like_the_paper:
        return ""
    return (
        " The paper's figures are of other scans of other bodies: compare ranks and trends, not "
        f"values. {' '.join(NOTES)}"
    )


def _printed(one: Printed) -> str:
    return f"{one.mean:g} ± {one.sd:g}"


def _number(value: float | None, digits: int) -> str:
    return NOT_THERE if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return NOT_THERE if value is None else f"{value:+.1f}"


def _percent(value: float | None) -> str:
    return NOT_THERE if value is None else f"{100 * value:.0f} %"


def _cost(values: Sequence[float | None], digits: str) -> str:
    known = [value for value in values if value is not None]
    return format(float(np.mean(known)), digits) if known else NOT_THERE
