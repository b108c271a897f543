"""The guards of a model at work: before a series is mapped, and on each slice that was.

The first measures the slices that stand for the series, to which the method may be fitted as well.
What was found travels with the series to its manifest row; a slice that went wrong also says so
itself, in Image Comments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cvsct.core.errors import GuardError, ModelError
from cvsct.core.volume import CTVolume, OpenedScan, ScanFacts
from cvsct.guard.descriptor import describe
from cvsct.guard.input_check import Side
from cvsct.guard.output_check import SliceChange, SliceLimits, judge_slice, measure_change
from cvsct.guard.overrides import OFF, SCAN, SLICES, Overrides
from cvsct.guard.verdict import ScanVerdict, judge_scan
from cvsct.model.bundle import Bundle

MARK = "cvsct guard"
"""Begins what a flagged image says of itself."""


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

    @property
    def checks_scans(self) -> bool:
        """Whether it has anything to say of a scan before it is mapped."""
        known = self.source is not None and self.target is not None
        return known and self.overrides.actions[SCAN] != OFF

    def check_scan(
        self, facts: ScanFacts, sample: CTVolume, position: float | None = None
    ) -> ScanVerdict | None:
        """What it has to say of a scan; None where it knows nothing or is off.

        Args:
            facts: what the scan's headers tell.
            sample: slices that stand for the scan (`core.sampling`).
            position: where the method itself has found it between the domains.

        Raises:
            GuardError: if the scan is unlike the model's scans and such are refused.
        """
        if self.source is None or self.target is None or not self.checks_scans:
            return None
        descriptor = describe(sample.select([i]) for i in range(len(sample.hu)))
        verdict = judge_scan(facts, descriptor, self.source, self.target, self.overrides, position)
        if verdict.kind == "out_of_domain" and self.overrides.actions[SCAN] == "refuse":
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


def facts_of(scan: OpenedScan) -> ScanFacts:
    """What a scan's headers tell a guard."""
    geometry = scan.geometry
    return ScanFacts(scan.series_uid, scan.shape, geometry.pixel_mm, geometry.thickness_mm,
                     scan.acquisition)  # fmt: skip


def _short(value: float) -> float | None:
    """Four digits, as JSON takes them; None for what is no finite number."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
