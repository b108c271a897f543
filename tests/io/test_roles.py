"""Roles of series in an evaluation, by where they come from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cvsct.core.volume import Acquisition
from cvsct.io.provenance import Origin, doubtful_roles, wrong_direction

A, B = Acquisition("Maker", "One", "K70", 120.0), Acquisition("Other", "Two", "K40", 100.0)
SOURCE, TARGET, RETEST = (
    Origin("1", acquired_by=A),
    Origin("2", acquired_by=B),
    Origin("3", acquired_by=B),
)
HARMONIZED = Origin("4", ours=True, made_like=str(B), acquired_by=A)
ROLES = {"harmonized": [HARMONIZED], "target": [TARGET], "source": [SOURCE], "retest": [RETEST]}


def test_series_in_their_roles_are_told_so() -> None:
    assert wrong_direction(ROLES) == doubtful_roles(ROLES) == ""


@pytest.mark.parametrize(
    ("harmonized", "target", "words"),
    [
        ([replace(HARMONIZED, made_like=str(A))], TARGET, "in the other direction?"),
        ([HARMONIZED, replace(HARMONIZED, made_like=str(A))], TARGET, "1 of 2 harmonized"),
        ([HARMONIZED], SOURCE, "did you give the source as --target?"),
        ([replace(HARMONIZED, made_like="")], SOURCE, ""),
        ([replace(HARMONIZED, made_like=str(A))], SOURCE, ""),  # other dose, same kernel
        ([replace(HARMONIZED, made_like="unknown scanner", acquired_by=Acquisition())], TARGET, ""),
    ],
)
def test_the_direction_is_known(harmonized: list[Origin], target: Origin, words: str) -> None:
    told = wrong_direction({"harmonized": harmonized, "target": [target]})
    assert words in told
    assert bool(told) == bool(words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"target": [HARMONIZED]}, "1 series is given as harmonized and as target alike"),
        ({"retest": [HARMONIZED]}, "1 series given as retest was written by `cvsct harmonize`"),
        ({"retest": [replace(RETEST, acquired_by=A)]}, "the retest is of Maker One, kernel K70"),
        ({"retest": [replace(RETEST, acquired_by=replace(B, kvp=120.0))]}, ""),
        ({"retest": [replace(RETEST, acquired_by=Acquisition())]}, ""),
        ({"target": [replace(TARGET, acquired_by=Acquisition())]}, ""),
    ],
)
def test_doubtful_roles_are_told(changed: dict[str, list[Origin]], words: str) -> None:
    told = doubtful_roles(ROLES | changed)
    assert words in told
    assert bool(told) == bool(words)
