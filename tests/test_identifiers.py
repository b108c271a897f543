"""Fifty identifiers planted in every series; none may leave through anything but derived DICOM."""

from __future__ import annotations

from pathlib import Path

from tests.faults.identifiers import everything_told
from tests.faults.planted import IDENTIFIERS


def test_no_planted_identifier_leaves(tmp_path: Path) -> None:
    told, wrong = everything_told(tmp_path)
    assert not wrong
    assert len(told) > 10_000
    assert [value for value in IDENTIFIERS if value in told] == []
    notes = tmp_path / "scans" / "good" / "notes.txt"
    assert notes.read_text() == IDENTIFIERS[0]
