"""The sides of an evaluation: one table that options, messages, keys and reports take them from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Side:
    """One row of the table: a set of images with a part to play in an evaluation.

    Args:
        name: the argument of `cvsct.evaluate`, the key in `metrics.json` and `manifest.json`, the
            word in `features.csv`.
        label: in the report's tables and figures.
        option: of `cvsct evaluate`.
        what: what the images are, for help and report.
        old_name: the word of 0.1.0, where that was another.
    """

    name: str
    label: str
    option: str
    what: str
    old_name: str = ""

    @property
    def old_option(self) -> str:
        """The option of 0.1.0, where that was another."""
        return f"--{self.old_name}" if self.old_name else ""


SOURCE = Side("source", "input", "--source", "The scans before they were harmonized.")
HARMONIZED = Side("harmonized", "harmonised", "--harmonized", "What `cvsct harmonize` wrote.")
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
"""In the order in which they are shown."""

OLD_NAMES_GO_IN = "0.3.0"
"""The version without the old words."""

OLD_KEYS = {
    **{side.name: side.old_name for side in SIDES.values() if side.old_name},
    "way_to_retest": "way_to_ceiling",
}
"""Keys of JSON files by the words of 0.1.0."""

_NEW_KEYS = {old: new for new, old in OLD_KEYS.items()}


def with_old_keys(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of plain values with the keys of 0.1.0 beside the new ones, at any depth."""
    both: dict[str, Any] = _with_keys(record, OLD_KEYS)
    return both


def with_new_keys(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record that 0.1.0 may have written, with today's keys beside its own, at any depth."""
    both: dict[str, Any] = _with_keys(record, _NEW_KEYS)
    return both


def _with_keys(value: Any, others: Mapping[str, str]) -> Any:
    """Mappings with their items under other keys too, but for keys that are there already."""
    if isinstance(value, Mapping):
        keyed = {key: _with_keys(item, others) for key, item in value.items()}
        return keyed | {
            others[key]: item
            for key, item in keyed.items()
            if key in others and others[key] not in keyed
        }
    return [_with_keys(each, others) for each in value] if isinstance(value, list) else value


def side_name(word: str) -> str:
    """Today's name of a side that a file of 0.1.0 may call otherwise."""
    return _NEW_KEYS.get(word, word)
