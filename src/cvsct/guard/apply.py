"""Guards of a model applied to a series: the scan before it is mapped, and each mapped slice.

The scan is judged by a sample of its slices, to which the method may be adapted as well. Verdicts
are written to the manifest row of the series; a slice that was changed too much is also flagged in
its Image Comments (0020,4000).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cvsct.core.errors import EvaluationError, GuardError, ModelError
from cvsct.core.slice_hashes import LEARNED, SliceHashes
from cvsct.core.volume import CTVolume, OpenedScan, ScanFacts
from cvsct.guard.descriptor import describe
from cvsct.guard.input_check import SideReference, round_up
from cvsct.guard.output_check import SliceChange, SliceLimits, judge_slice, measure_change
from cvsct.guard.overrides import OFF, SCAN, SLICES, Overrides
from cvsct.guard.scan_verdict import ScanVerdict, judge_scan
from cvsct.model.bundle import Bundle

REMARK_PREFIX = "cvsct guard"
"""First words of the Image Comments of a flagged slice."""


@dataclass(frozen=True)
class Guard:
    """Both guards of a model for one direction, with the options of the user.

    Args:
        source: the side that the model maps from; None where the model was not calibrated.
        target: the other side; None likewise.
        slices: how much a slice may change; None likewise.
        overrides: options `--guard` of this run.
        learned: hashes of slices that the model learned from; None for models of 0.1.0.
    """

    source: SideReference | None = None
    target: SideReference | None = None
    slices: SliceLimits | None = None
    overrides: Overrides = field(default_factory=Overrides)
    learned: SliceHashes | None = None

    @classmethod
    def of(cls, bundle: Bundle, reverse: bool = False, options: Sequence[str] = ()) -> Guard:
        """Guard of a model; one without limits where the model has none, or where both are off.

        Args:
            bundle: the model.
            reverse: whether target scans are mapped to the source.
            options: values of `--guard`.

        Raises:
            UsageError: for an option that does not exist.
            ModelError: if the model's guard cannot be read.
        """
        overrides = Overrides.parse(options)
        section = bundle.guard
        if not section or overrides.all_off:
            return cls(overrides=overrides)
        try:
            limits = section["limits"]
            sides = [
                SideReference.from_json(section["known"][name], limits[name])
                for name in ("source", "target")
            ]
            slice_limits = limits.get("b2a" if reverse else "a2b")
            slices = (
                overrides.apply_to(SliceLimits.from_json(slice_limits).within_highest())
                if slice_limits
                else None
            )
            learned = SliceHashes.from_json(section[LEARNED]) if LEARNED in section else None
        except (EvaluationError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"the model's guard cannot be read ({error}); train it again, or run without it "
                "by --guard off"
            ) from error
        source, target = sides[::-1] if reverse else sides
        return cls(source, target, slices, overrides, learned)

    @property
    def checks_scans(self) -> bool:
        """Whether scans are judged before they are mapped."""
        calibrated = self.source is not None and self.target is not None
        return calibrated and self.overrides.actions[SCAN] != OFF

    def check_scan(
        self, facts: ScanFacts, sample: CTVolume, position: float | None = None
    ) -> ScanVerdict | None:
        """Judge a scan; None where the model was not calibrated or the guard is off.

        Args:
            facts: header facts of the scan.
            sample: slices that represent the scan (`core.sampling`).
            position: of its texture between target (0) and source (1), where the method has
                measured it.

        Raises:
            GuardError: if the scan is out of domain and the action is to refuse; the message
                names the options that accept it.
        """
        if self.source is None or self.target is None or not self.checks_scans:
            return None
        descriptor = describe(sample.select([i]) for i in range(len(sample.hu)))
        verdict = judge_scan(facts, descriptor, self.source, self.target, self.overrides, position)
        if self.learned is not None:
            count = self.learned.count(sample.hu)
            verdict = replace(verdict, n_learned=count if self.learned.told(count) else None)
        if verdict.kind == "out_of_domain" and self.overrides.actions[SCAN] == "refuse":
            raise GuardError(verdict.refusal())
        return verdict

    def watch(self) -> SliceWatch:
        """Start the check of one series' slices."""
        action = self.overrides.actions[SLICES]
        return SliceWatch(None if action == OFF else self.slices, refuse=action == "refuse")


@dataclass
class SliceWatch:
    """Check of each mapped slice of one series against limits.

    Args:
        limits: None checks nothing.
        refuse: whether a slice beyond a limit ends the series.
        n_judged: slices judged so far.
        flagged: slices beyond a limit, as the manifest lists them.
        worst: value of the largest magnitude of each figure so far.
    """

    limits: SliceLimits | None
    refuse: bool = False
    n_judged: int = 0
    flagged: list[dict[str, Any]] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)

    def __call__(self, before: CTVolume, after: CTVolume) -> list[str]:
        """Judge the next slices.

        Args:
            before, after: the same slices before and after the mapping.

        Returns:
            Text for the Image Comments of each slice; empty for a good one.

        Raises:
            GuardError: at the first slice beyond a limit, where such are refused; the message
                names the options that accept it.
        """
        if self.limits is None:
            return [""] * len(before.hu)
        remarks = []
        for i, z_mm in enumerate(before.geometry.z_mm.tolist()):
            change = measure_change(before.hu[i], after.hu[i], before.pixel_mm)
            reasons = judge_slice(change, self.limits)
            self.n_judged += 1
            self._remember(change)
            remarks.append(f"{REMARK_PREFIX}: {'; '.join(reasons)}" if reasons else "")
            if reasons:
                position = {"slice": self.n_judged, "z_mm": round(z_mm, 3)}
                self.flagged.append({**position, "exceeded": self._exceeded(change)})
            if reasons and self.refuse:
                raise GuardError(
                    f"slice {self.n_judged} (z {z_mm:.1f} mm) was changed too much: "
                    f"{'; '.join(reasons)}. Use another model, accept this change with "
                    f"{self._accepting_options(change)}, or have such slices written and flagged "
                    "with --guard slices=flag"
                )
        return remarks

    def _exceeded(self, change: SliceChange) -> dict[str, float | None]:
        """Figures beyond their limits, to four digits; None where one could not be measured."""
        limits = asdict(self.limits) if self.limits else {}
        return {
            name: _rounded(value)
            for name, value in asdict(change).items()
            if not abs(value) <= limits[name]
        }

    def _accepting_options(self, change: SliceChange) -> str:
        """Options that accept the figures of a change that are beyond their limits."""
        return " ".join(
            f"--guard {name}={'off' if value is None else round_up(abs(value))}"
            for name, value in self._exceeded(change).items()
        )

    def _remember(self, change: SliceChange) -> None:
        """Keep the value of the largest magnitude of each figure."""
        for name, value in asdict(change).items():
            if math.isfinite(value) and abs(value) >= abs(self.worst.get(name, 0.0)):
                self.worst[name] = value

    def to_json(self) -> dict[str, Any]:
        """JSON values for a manifest: slices judged and flagged, worst values, limits."""
        limits = asdict(self.limits) if self.limits else {}
        return {
            "judged": self.n_judged,
            "flagged": self.flagged,
            "worst": {name: _rounded(value) for name, value in self.worst.items()},
            "limits": {name: _rounded(value) for name, value in limits.items()},
        }


def guard_report(
    verdict: ScanVerdict | None, watch: SliceWatch, remark: str = ""
) -> dict[str, Any]:
    """Entry `guard` of a series' manifest row; empty where neither guard judged anything.

    Args:
        verdict: on the scan; None where it was not judged.
        watch: the check of its slices.
        remark: of the method itself on this scan (`VolumeMapping.remark`).
    """
    entry: dict[str, Any] = {"method": remark} if remark else {}
    if verdict is not None:
        entry["scan"] = verdict.to_json()
    if watch.limits is not None:
        entry["slices"] = watch.to_json()
    return entry


def scan_facts(scan: OpenedScan) -> ScanFacts:
    """Header facts of an opened scan."""
    geometry = scan.geometry
    return ScanFacts(scan.series_uid, scan.shape, geometry.pixel_mm, geometry.thickness_mm,
                     scan.acquisition)  # fmt: skip


def _rounded(value: float) -> float | None:
    """A value rounded to four significant digits; None for NaN and infinity, which JSON lacks."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
