"""Sides of an evaluation: the one table for options, messages, JSON keys and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Side:
    """One row of the table of sides: a set of scans with a role in an evaluation.

    Args:
        name: argument of `cvsct.evaluate`, key in `metrics.json` and `manifest.json`, and value in
            `features.csv`.
        label: name in tables and figures of the report.
        option: option of `cvsct evaluate`.
        what: description for help and report.
        old_name: name in version 0.1.0, where it was another.
    """

    name: str
    label: str
    option: str
    what: str
    old_name: str = ""

    @property
    def old_option(self) -> str:
        """Option in version 0.1.0, where it was another; else empty."""
        return f"--{self.old_name}" if self.old_name else ""


SOURCE = Side("source", "input", "--source", "The scans before they were harmonized.")
HARMONIZED = Side("harmonized", "harmonized", "--harmonized", "What `cvsct harmonize` wrote.")
RETEST = Side(
    "retest", "retest", "--retest",
    "The target scanned once more, with other noise: no method can agree better.", "repeat",
)  # fmt: skip
TARGET = Side("target", "target", "--target", "Scans of scanner B to compare with.")
TARGET_HARMONIZED = Side(
    "target_harmonized", "target harmonized", "--target-harmonized",
    "The target put through the model, which should leave it alone.", "passed",
)  # fmt: skip

SIDES = {side.name: side for side in (SOURCE, HARMONIZED, RETEST, TARGET, TARGET_HARMONIZED)}
"""All sides by name, in the order in which they are shown."""

OLD_NAMES_GO_IN = "0.3.0"
"""Version in which the names of 0.1.0 are removed."""

OLD_KEYS = {
    **{side.name: side.old_name for side in SIDES.values() if side.old_name},
    "way_to_retest": "way_to_ceiling",
}
"""Keys of version 0.1.0 by the keys of today."""

_NEW_KEYS = {old: new for new, old in OLD_KEYS.items()}


def with_old_keys(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys of version 0.1.0 beside the new keys of a record, at any depth."""
    both: dict[str, Any] = _with_keys(record, OLD_KEYS)
    return both


def with_new_keys(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys of today beside those of a record that 0.1.0 may have written, at any depth."""
    both: dict[str, Any] = _with_keys(record, _NEW_KEYS)
    return both


def _with_keys(value: Any, others: Mapping[str, str]) -> Any:
    """Add items of mappings under other keys, unless those keys exist already."""
    if isinstance(value, Mapping):
        keyed = {key: _with_keys(item, others) for key, item in value.items()}
        return keyed | {
            others[key]: item
            for key, item in keyed.items()
            if key in others and others[key] not in keyed
        }
    return [_with_keys(item, others) for item in value] if isinstance(value, list) else value


def side_name(name: str) -> str:
    """Name of a side today, for a name that a file of version 0.1.0 may hold."""
    return _NEW_KEYS.get(name, name)
