"""Tiles of a scorecard, and the scorecard that they make up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "attention", "fail", "not enough data"]
"""Status of a tile; `not enough data` is an interval wider than the tolerance, or no figure."""

GRAVITY: Mapping[Status, int] = {"pass": 0, "not enough data": 1, "attention": 2, "fail": 3}
"""Order of statuses, the worst last."""


@dataclass(frozen=True)
class Tile:
    """One axis of a scorecard.

    Args:
        key: name of the axis in `metrics.json` and among the tolerances.
        title: its heading.
        status: its status.
        value: what was measured, with its 95 % interval, as text; empty where nothing was.
        target: what it should be, as text.
        tolerance: how far from there it may lie, as text; of the retest where that is wider.
        reason: why the status is what it is, as a sentence without its end.
    """

    key: str
    title: str
    status: Status
    value: str
    target: str
    tolerance: str
    reason: str


def worst(tiles: Sequence[Tile]) -> Tile:
    """The first tile of the worst status."""
    return max(tiles, key=lambda tile: GRAVITY[tile.status])


@dataclass(frozen=True)
class Scorecard:
    """Scorecard of an evaluation, as strict as its worst tile.

    Args:
        tiles: the axes, in the order in which they are shown.
    """

    tiles: tuple[Tile, ...]

    @property
    def worst(self) -> Tile:
        """The first tile of the worst status."""
        return worst(self.tiles)

    @property
    def status(self) -> Status:
        """Status of the worst tile."""
        return self.worst.status

    def reaches(self, status: Status) -> bool:
        """Whether the worst tile is as bad as a status, or worse."""
        return GRAVITY[self.status] >= GRAVITY[status]

    @property
    def headline(self) -> str:
        """The worst tile with its reason, and how many others are as bad."""
        worst = self.worst
        if worst.status == "pass":
            return f"Pass: all {len(self.tiles)} tiles lie within their tolerances"
        others = [tile.title for tile in self.tiles if tile.status == worst.status][1:]
        also = f"; also {', '.join(others)}" if others else ""
        return f"{worst.status.capitalize()}: {worst.title}: {worst.reason}{also}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for `metrics.json`."""
        return {
            "status": self.status,
            "headline": self.headline,
            "tiles": [asdict(tile) for tile in self.tiles],
        }
