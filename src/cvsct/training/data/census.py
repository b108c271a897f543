"""Census of a training set: what scans each side holds, and what about them may spoil a model.

Headers tell it, so it is known before anything is learned. Nothing here stops a training; what
does is found by `cvsct.guard.training_set`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvsct.core.volume import ScanFacts

SIDES = ("source", "target")

FEW_SLICES = 10
NOTED_THICKNESS_RATIO = 2.0
MOST_ROWS = 12
"""Of a side; further groups of scans are counted in one row."""

HEAD = ("side", "scanner", "kernel", "kVp", "thickness mm", "pixel mm", "patients", "series",
        "slices")  # fmt: skip


@dataclass(frozen=True)
class Census:
    """Census of a training set, as rows of a table and warnings.

    Args:
        rows: as many cells each as `HEAD`; one for each scanner and kernel of a side.
        warnings: what may spoil the model, in sentences.
    """

    rows: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, source: Sequence[ScanFacts], target: Sequence[ScanFacts]) -> Census:
        """Count the scans of both sides, and look for what may spoil a model."""
        sides = dict(zip(SIDES, (source, target), strict=True))
        return cls(
            rows=tuple(row for side, facts in sides.items() for row in side_rows(side, facts)),
            warnings=(
                *(text for side, facts in sides.items() for text in side_warnings(side, facts)),
                *difference_warnings(source, target),
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a model's card and manifest."""
        return {
            "scans": [dict(zip(HEAD, row, strict=True)) for row in self.rows],
            "warnings": list(self.warnings),
        }


def few_slices(side: str, facts: Sequence[ScanFacts]) -> str:
    """Warning that a side has few slices; empty where it has enough."""
    slices = sum(scan.shape[0] for scan in facts)
    if slices >= FEW_SLICES:
        return ""
    if slices == 1:
        return f"the {side} holds 1 slice; the model will know little but it"
    return f"the {side} holds only {slices} slices; the model will know little but these"


def thickness_apart(source: Sequence[ScanFacts], target: Sequence[ScanFacts]) -> str:
    """Warning that slice thickness differs between the sides; empty where it does not."""
    a, b = (median_over_slices([scan.thickness_mm for scan in side], side)
            for side in (source, target))  # fmt: skip
    if min(a, b) <= 0 or not _factor_apart(a, b):
        return ""
    return (
        f"slice thickness differs: source {a:.4g} mm, target {b:.4g} mm (medians); the model will "
        "learn that difference with the scanner's"
    )


def median_over_slices(values: Sequence[float], facts: Sequence[ScanFacts]) -> float:
    """Median over slices of a value that each series has."""
    return float(np.median(np.repeat(values, [scan.shape[0] for scan in facts])))


def _factor_apart(a: float, b: float) -> bool:
    return max(a, b) / min(a, b) >= NOTED_THICKNESS_RATIO - 1e-6


def side_rows(side: str, facts: Sequence[ScanFacts]) -> list[tuple[str, ...]]:
    """Rows of one side: its scans by scanner and kernel."""
    groups: dict[tuple[str, str], list[ScanFacts]] = {}
    for scan in facts:
        scanner, kernel = scan.acquisition.scanner, scan.acquisition.kernel
        groups.setdefault((scanner or "unknown", kernel or "unknown"), []).append(scan)
    ordered = sorted(groups.items())
    shown = ordered if len(ordered) <= MOST_ROWS else ordered[: MOST_ROWS - 1]
    rows = [_row(side, *names, scans) for names, scans in shown]
    rest = [scan for _, scans in ordered[len(shown) :] for scan in scans]
    if rest:
        rows.append(_row(side, f"{len(ordered) - len(shown)} more", "various", rest))
    return rows


def _row(side: str, scanner: str, kernel: str, facts: Sequence[ScanFacts]) -> tuple[str, ...]:
    voltages = sorted({scan.acquisition.kvp for scan in facts} - {0.0})
    patients = {scan.patient for scan in facts} - {""}
    return (
        side,
        scanner,
        kernel,
        ", ".join(f"{voltage:g}" for voltage in voltages) or "unknown",
        span([scan.thickness_mm for scan in facts if scan.thickness_mm]),
        span([mm for scan in facts for mm in scan.pixel_mm]),
        str(len(patients) or "unknown"),
        str(len(facts)),
        str(sum(scan.shape[0] for scan in facts)),
    )


def span(lengths: Sequence[float]) -> str:
    """Lengths in mm from the shortest to the longest, as text."""
    if not lengths:
        return "unknown"
    low, high = f"{min(lengths):.3g}", f"{max(lengths):.3g}"
    return low if low == high else f"{low} to {high}"


def side_warnings(side: str, facts: Sequence[ScanFacts]) -> Iterator[str]:
    """Warnings on one side: few slices, mixed kernels, scanners, voltages or thicknesses."""
    few = few_slices(side, facts)
    if few:
        yield few
    acquisitions = [scan.acquisition for scan in facts]
    names = [acquisition.kernel for acquisition in acquisitions if acquisition.kernel]
    kernels = {"".join(name.casefold().split()): name for name in names}
    if len(kernels) > 1:
        named = _listed(sorted(kernels.values()))
        yield f"the {side} mixes kernels {named}: the model learns their mean; give one"
    models = {
        acquisition.model.casefold(): acquisition.scanner
        for acquisition in acquisitions
        if acquisition.model
    }
    if len(models) > 1:
        named = _listed(sorted(models.values()))
        yield f"the {side} mixes scanners {named}: the model learns their mean; give one"
    voltages = sorted({acquisition.kvp for acquisition in acquisitions if acquisition.kvp})
    if len(voltages) > 1:
        named = _listed([f"{voltage:g}" for voltage in voltages])
        yield f"the {side} mixes tube voltages of {named} kVp: noise differs between them"
    thick = sorted({scan.thickness_mm for scan in facts if scan.thickness_mm > 0})
    if thick and _factor_apart(thick[0], thick[-1]):
        yield (
            f"the {side} mixes slices of {span(thick)} mm thickness: thin ones are noisier and "
            "sharper; give one thickness"
        )
    unnamed = sum(
        not (acquisition.manufacturer or acquisition.model or acquisition.kernel)
        for acquisition in acquisitions
    )
    if unnamed:
        yield (
            f"{unnamed} of {len(facts)} series of the {side} name no scanner and no kernel, as "
            "NIfTI cannot: whether they are of one scanner is not known"
        )


def difference_warnings(source: Sequence[ScanFacts], target: Sequence[ScanFacts]) -> Iterator[str]:
    """Warnings on differences between the sides other than their scanners."""
    apart = thickness_apart(source, target)
    if apart:
        yield apart
    a, b = (sorted({scan.acquisition.kvp for scan in side} - {0.0}) for side in (source, target))
    if a and b and not set(a) & set(b):
        names = [_listed([f"{kvp:g}" for kvp in side]) for side in (a, b)]
        yield (
            f"tube voltage differs: source {names[0]} kVp, target {names[1]} kVp; the model will "
            "learn that difference with the scanner's"
        )


def _listed(names: Sequence[str]) -> str:
    shown = list(names) if len(names) <= 5 else [*names[:4], f"{len(names) - 4} more"]
    return " and ".join([*filter(None, [", ".join(shown[:-1])]), shown[-1]])
