"""The guards of a model at work: before a series is mapped, and on each slice that was.

A few slices of the series, evenly spaced, are read for the first. What was found travels with the
series to its manifest row; a slice that went wrong also says so itself, in Image Comments.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cvsct.core.errors import GuardError, ModelError
from cvsct.core.volume import CTVolume, OpenedScan, ScanFacts
from cvsct.guard.descriptor import look_at
from cvsct.guard.input_check import Side
from cvsct.guard.output_check import SliceChange, SliceLimits, judge_slice, measure_change
from cvsct.guard.overrides import OFF, SCAN, SLICES, Overrides
from cvsct.guard.verdict import ScanVerdict, judge_scan
from cvsct.methods.volume_mapping import spread
from cvsct.model.bundle import Bundle

MARK = "cvsct guard"
"""Begins what a flagged image says of itself."""

MOST_SLICES, LEAST_SLICES, ONE_OF = 16, 4, 4
"""Of a series: one slice of so many is looked at before it is mapped, within these bounds."""


@dataclass(frozen=True)
class Guard:
    """What a model's bundle knows for one direction, and what the user has set.

    Args:
        source: the side that the model maps from, `target` the other; None where the model does
            not know them.
        slices: how much a slice may change; None likewise.
    """

    source: Side | None = None
    target: Side | None = None
    slices: SliceLimits | None = None
    overrides: Overrides = field(default_factory=Overrides)

    @classmethod
    def of(cls, bundle: Bundle, reverse: bool = False, words: Sequence[str] = ()) -> Guard:
        """The guard of a model; one without limits where the model holds none.

        Raises:
            UsageError: for words that set nothing.
            ModelError: if the model's guard cannot be read.
        """
        overrides = Overrides.parse(words)
        known = bundle.guard
        if not known:
            return cls(overrides=overrides)
        try:
            limits = known["limits"]
            sides = [
                Side.from_json(known["known"][name], limits[name]) for name in ("source", "target")
            ]
            given = limits.get("b2a" if reverse else "a2b")
            slices = overrides.on(SliceLimits.from_json(given)) if given else None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"the model's guard cannot be read ({error}); train it again, or run without it "
                "by --guard off"
            ) from error
        source, target = sides[::-1] if reverse else sides
        return cls(source, target, slices, overrides)

    def look(self, stack: OpenedScan) -> ScanVerdict | None:
        """What it has to say of a series; None where it knows nothing or is off.

        Raises:
            GuardError: if the series is unlike the model's scans and such are refused.
            SeriesError: if a slice cannot be read.
        """
        action = self.overrides.actions[SCAN]
        if self.source is None or self.target is None or action == OFF:
            return None
        slices = map(functools.partial(_slice, stack), evenly(len(stack)))
        verdict = judge_scan(facts_of_stack(stack), look_at(slices), self.source, self.target,
                             self.overrides)  # fmt: skip
        if verdict.kind == "unlike" and action == "refuse":
            raise GuardError(verdict.refusal())
        return verdict

    def watch(self) -> SliceWatch:
        """What looks at the slices of one series as they are mapped."""
        action = self.overrides.actions[SLICES]
        return SliceWatch(None if action == OFF else self.slices, refuse=action == "refuse")


@dataclass
class SliceWatch:
    """Judges each slice of one series against limits; does nothing without any.

    Args:
        refuse: whether a slice beyond a limit ends the series.
    """

    limits: SliceLimits | None
    refuse: bool = False
    n_judged: int = 0
    flagged: list[dict[str, Any]] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)

    def __call__(self, before: CTVolume, after: CTVolume) -> list[str]:
        """Judge the next slices; gives what each has to say of itself, mostly nothing.

        Raises:
            GuardError: at the first beyond a limit, where such are refused.
        """
        if self.limits is None:
            return [""] * len(before.hu)
        remarks = []
        for i, z_mm in enumerate(before.geometry.z_mm.tolist()):
            change = measure_change(before.hu[i], after.hu[i], before.pixel_mm)
            beyond = judge_slice(change, self.limits)
            self.n_judged += 1
            self._remember(change)
            remarks.append(f"{MARK}: {'; '.join(beyond)}" if beyond else "")
            if beyond:
                place = {"slice": self.n_judged, "z_mm": round(z_mm, 3)}
                self.flagged.append({**place, "exceeded": self._exceeded(change)})
            if beyond and self.refuse:
                raise GuardError(
                    f"slice {self.n_judged} (z {z_mm:.1f} mm) was changed too much: "
                    f"{'; '.join(beyond)}. Use another model, or have such slices written and "
                    "flagged: leave out --guard slices=refuse"
                )
        return remarks

    def _exceeded(self, change: SliceChange) -> dict[str, float | None]:
        """Each figure beyond its limit; None where it could not be measured."""
        limits = asdict(self.limits) if self.limits else {}
        return {
            name: _short(value)
            for name, value in asdict(change).items()
            if not abs(value) <= limits[name]
        }

    def _remember(self, change: SliceChange) -> None:
        for name, value in asdict(change).items():
            if math.isfinite(value) and abs(value) >= abs(self.worst.get(name, 0.0)):
                self.worst[name] = value

    def to_json(self) -> dict[str, Any]:
        """For a manifest: how many were judged, which were flagged and why, the worst of each."""
        limits = asdict(self.limits) if self.limits else {}
        return {
            "judged": self.n_judged,
            "flagged": self.flagged,
            "worst": {name: _short(value) for name, value in self.worst.items()},
            "limits": {name: _short(value) for name, value in limits.items()},
        }


def report(verdict: ScanVerdict | None, watch: SliceWatch, remark: str = "") -> dict[str, Any]:
    """What a series' manifest row says of its guards; empty where none had anything to say.

    Args:
        remark: what the method itself has to say of this scan (`VolumeMapping.remark`).
    """
    found: dict[str, Any] = {"method": remark} if remark else {}
    if verdict is not None:
        found["scan"] = verdict.to_json()
    if watch.limits is not None:
        found["slices"] = watch.to_json()
    return found


def evenly(count: int, most: int = MOST_SLICES) -> list[int]:
    """Which of so many slices are looked at."""
    return spread(count, max(LEAST_SLICES, min(most, count // ONE_OF)))


def facts_of_stack(stack: OpenedScan) -> ScanFacts:
    """What a series' headers tell a guard."""
    geometry = stack.geometry
    return ScanFacts(stack.series_uid, stack.shape, geometry.pixel_mm, geometry.thickness_mm,
                     stack.acquisition)  # fmt: skip


def _slice(stack: OpenedScan, i: int) -> CTVolume:
    return stack.read(i, i + 1)


def _short(value: float) -> float | None:
    """Four digits, as JSON takes them; None for what is no finite number."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
