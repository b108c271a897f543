"""Options `--guard` of one run: `NAME=VALUE`, `NAME=off`, or `off` for both guards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from cvsct.core.errors import UsageError
from cvsct.guard.input_check import NAMES, ScanLimits
from cvsct.guard.output_check import SliceLimits

OFF = "off"
SCAN, SLICES = "scan", "slices"
DEFAULTS = {SCAN: "refuse", SLICES: "flag"}
ACTIONS = {SCAN: ("refuse", "note", OFF), SLICES: ("flag", "refuse", OFF)}
"""Actions on a scan unlike those of the model, and on a slice that was changed too much."""

NUMBERS = tuple(limit.name for kind in (ScanLimits, SliceLimits) for limit in fields(kind))

Limits = TypeVar("Limits", ScanLimits, SliceLimits)


@dataclass(frozen=True)
class Overrides:
    """Limits and actions that the user has set with `--guard`.

    Args:
        values: limits by name; infinite where a limit was switched off.
        off: names without a number that were switched off.
        actions: by `scan` and `slices`, one of `ACTIONS`.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    off: frozenset[str] = frozenset()
    actions: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULTS))

    @classmethod
    def parse(cls, words: Sequence[str]) -> Overrides:
        """Read the values of `--guard`; later ones override earlier ones.

        Raises:
            UsageError: for a name that does not exist or a value it does not take.
        """
        values: dict[str, float] = {}
        off: set[str] = set()
        actions = dict(DEFAULTS)
        for word in words:
            name, _, value = word.partition("=")
            if word == OFF:
                actions = dict.fromkeys(actions, OFF)
            elif name in actions:
                if value not in ACTIONS[name]:
                    raise UsageError(f"--guard {word}: {name} is {_join_with_or(ACTIONS[name])}")
                actions[name] = value
            elif name in NUMBERS:
                values[name] = _number(word, value)
            elif name in NAMES and value == OFF:
                off.add(name)
            elif name in NAMES:
                raise UsageError(f"--guard {word}: {name} has no number, it can only be {OFF}")
            else:
                known = ", ".join([*actions, *dict.fromkeys([*NAMES, *NUMBERS])])
                raise UsageError(
                    f"--guard {word}: expected {OFF}, or NAME=VALUE with one of {known}"
                )
        return cls(values, frozenset(off), actions)

    @property
    def all_off(self) -> bool:
        """Whether both guards are off."""
        return all(action == OFF for action in self.actions.values())

    def apply_to(self, limits: Limits) -> Limits:
        """The limits, replaced by those that the user has set."""
        names = {limit.name for limit in fields(limits)}
        return replace(limits, **{k: v for k, v in self.values.items() if k in names})


def _number(word: str, value: str) -> float:
    if value == OFF:
        return math.inf
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise UsageError(f"--guard {word}: expected a number of at least 0, or {OFF}")
    return number


def _join_with_or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
