"""What an evaluation takes from a manifest of `cvsct harmonize`, even one that makes no sense."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pydicom
import pytest

from cvsct.core.slice_hashes import LEARNED
from cvsct.core.volume import CTVolume
from cvsct.evaluation.guards import guards_of
from cvsct.evaluation.independence import independence_of
from tests.conftest import make_volume

ROW: dict[str, Any] = {
    "derived_series_uid": "1.2.3",
    "folder": "f",
    "guard": {
        "scan": {"kind": "in_domain", "position": 0.9, "exceeded": {"noise_db": "noise 9 dB"}},
        "slices": {
            "judged": 8,
            "limits": {"grid_ratio": 3.0},
            "flagged": [{"slice": 1, "z_mm": 2.0, "exceeded": {"grid_ratio": 4.0}}],
        },
    },
}
MANIFEST: dict[str, Any] = {
    "config": {"guard": []},
    "figures": {"series": [ROW], LEARNED: {"key": "ab", "hashes": ["00"]}},
}
WRONG = [None, 3, "x", [], {}, [1], {"a": 1}, float("nan"), -5, True]


def series(uid: str) -> CTVolume:
    volume = make_volume(np.zeros((2, 8, 8)))
    return replace(volume, series_uid=uid, headers=(pydicom.Dataset(),) * 2)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*at, key))


def with_wrong(place: tuple[Any, ...], wrong: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(MANIFEST)
    parent: Any = manifest
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = wrong
    return manifest


@pytest.mark.parametrize("place", list(places(MANIFEST)), ids=str)
def test_a_manifest_that_makes_no_sense_is_read(place: tuple[Any, ...]) -> None:
    """A wrong value of any type ends no evaluation after all its work."""
    scans = {"source": [series("9")], "target": [series("8")]}
    for wrong in WRONG:
        manifest = with_wrong(place, wrong)
        records = guards_of(manifest, [series("1.2.3")])
        json.dumps([record.to_json() for record in records], allow_nan=False)
        independence_of(manifest, scans)


def test_what_cannot_be_read_was_not_judged() -> None:
    manifest = with_wrong(("figures", "series", 0, "guard", "slices", "flagged"), [{}])
    (record,) = guards_of(manifest, [series("1.2.3")])
    assert (record.series, record.scan, record.judged) == ("f", "", None)


def test_series_that_the_manifest_does_not_name_were_not_judged() -> None:
    known, stranger = guards_of(MANIFEST, [series("1.2.3"), series("4.5.6")])
    assert (known.scan, known.series_uid) == ("in_domain", "1.2.3")
    assert (stranger.scan, stranger.series_uid) == ("", "4.5.6")
    nifti = make_volume(np.zeros((2, 8, 8)))
    assert [each.scan for each in guards_of(MANIFEST, [nifti, nifti])] == ["in_domain", ""]
    assert len(guards_of(MANIFEST, [nifti])) == 1


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["scan=note", "slices=refuse"], ()),
        (["noise_db=40", "kernel=off", "scan=refuse"], ("noise_db=40", "kernel=off")),
    ],
)
def test_limits_that_the_user_changed_are_known(
    options: list[str], changed: tuple[str, ...]
) -> None:
    (record,) = guards_of(with_wrong(("config", "guard"), options), [series("1.2.3")])
    assert record.changed_limits == changed


@pytest.mark.parametrize(
    "hashes",
    [
        {"key": "ab", "hashes": []},
        {"key": "ab", "hashes": "00"},
        {"key": "ab" * 65, "hashes": ["00"]},
    ],
)
def test_a_model_without_usable_hashes_is_unknown(hashes: dict[str, Any]) -> None:
    manifest = with_wrong(("figures", LEARNED), hashes)
    assert independence_of(manifest, {"target": [series("8")]}) is None
    assert independence_of(MANIFEST, {"target": [series("8")]}) is not None
