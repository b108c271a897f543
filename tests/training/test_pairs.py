"""Pairs of patches: one place, one turn, by geometry, whatever the order of files and series."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvsct.core.errors import TrainingError
from cvsct.core.volume import CTVolume, HUWindow
from cvsct.training.data.pairs import PairSampler
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.sampler import PatchSampler
from cvsct.training.data.store import INDEX, Store, open_store
from tests.conftest import make_volume
from tests.core.test_pairing import moved
from tests.training.test_patches import body

WINDOW = HUWindow(-1000.0, 1000.0)
RULE = PatchRule(24)
GAIN_HU, UNIT = 16.0, 16.0 / 1000
"""The target is the source and 16 HU, exact in float32 on a scale of 1000 HU to 1."""


def scan(
    seed: int, slices: int = 4, frame: str = "1.2.3", patient: str = "", kvp: float = 120.0
) -> CTVolume:
    """A body whose every pixel has its own noise, so that patches of two places are never alike."""
    volume = make_volume(body(seed, slices))
    return replace(
        volume,
        geometry=replace(volume.geometry, frame_of_reference=frame),
        acquisition=replace(volume.acquisition, kvp=kvp),
        patient=patient,
    )


def other_scanner(volume: CTVolume) -> CTVolume:
    """The same body and place, brighter; its series and slices have other numbers."""
    return volume.with_hu(np.where(volume.hu > -500, volume.hu + GAIN_HU, volume.hu))


def stores(folder: Path, source: list[CTVolume], target: list[CTVolume]) -> tuple[Store, Store]:
    return (
        open_store(folder / "source", source, RULE),
        open_store(folder / "target", target, RULE),
    )


def sampler_of(folder: Path, source: list[CTVolume], target: list[CTVolume]) -> PairSampler:
    return PairSampler.of(*stores(folder, source, target), WINDOW)


def assert_paired(source: np.ndarray, target: np.ndarray) -> None:
    """Every pixel of tissue is brighter by the same amount, and air is not."""
    tissue = source > -0.5
    assert tissue.mean() > 0.7
    np.testing.assert_allclose((target - source)[tissue], UNIT, atol=1e-6)
    np.testing.assert_array_equal(target[~tissue], source[~tissue])


def test_patches_of_a_pair_show_one_place_turned_alike(tmp_path: Path) -> None:
    """Series in another order, slices in another, more of them, and some missing."""
    one, two = scan(0, 5, "1.1"), scan(1, 4, "1.2")
    target = [
        other_scanner(two).select([3, 0, 2]),
        scan(7, 3, "1.9"),
        other_scanner(one).select([4, 1, 3, 2]),
    ]
    sampler = sampler_of(tmp_path, [one, two], target)
    assert sampler.n_pairs == 7
    assert sampler.unpaired == (2, 3)
    assert sampler.pairs.tolist() == [[1, 7], [2, 9], [3, 8], [4, 6], [5, 1], [7, 2], [8, 0]]
    assert any("2 of 9 slices of the source have no partner" in each for each in sampler.notes)
    assert any("3 of 10 slices of the target" in each for each in sampler.notes)
    for seed in range(3):
        pair = sampler.draw(40, np.random.default_rng(seed))
        assert_paired(*pair)
        assert_paired(*sampler.validation_patches(40, np.random.default_rng(seed)))
        again = sampler.draw(40, np.random.default_rng(seed))
        assert all(map(np.array_equal, pair, again))


def test_sources_are_those_an_unpaired_sampler_of_the_same_slices_draws(tmp_path: Path) -> None:
    """So places have equal chances and turns are the same, as test_patches proves of it."""
    volumes = [scan(0, 5), scan(1, 4, "1.2")]
    sampler = sampler_of(tmp_path, volumes, [other_scanner(volumes[0]).select([0, 2, 3])])
    alone = PatchSampler(sampler.stores[0], WINDOW, np.array([0, 2, 3]))
    assert len(sampler) == len(alone)
    for draw in ("draw", "validation_patches"):
        found, _ = getattr(sampler, draw)(50, np.random.default_rng(1))
        assert np.array_equal(found, getattr(alone, draw)(50, np.random.default_rng(1)))


def test_crops_and_slices_are_pairs_too(tmp_path: Path) -> None:
    sampler = sampler_of(tmp_path, [scan(0)], [other_scanner(scan(0)).select([2, 1])])
    source, target = sampler.validation_patches(10, np.random.default_rng(0), size_px=40)
    assert source.shape == target.shape == (10, 1, 40, 40)
    tissue = source > -0.5
    np.testing.assert_allclose((target - source)[tissue], UNIT, atol=1e-6)
    source_hu, target_hu = sampler.slice_hu(0)
    assert np.array_equal(source_hu, scan(0).hu[1])
    assert np.array_equal(target_hu, other_scanner(scan(0)).hu[1])


def test_scans_of_one_body_at_several_voltages_pair_with_their_own(tmp_path: Path) -> None:
    at = {kvp: scan(int(kvp), kvp=kvp) for kvp in (70.0, 120.0)}
    sampler = sampler_of(
        tmp_path, [at[70.0], at[120.0]], [other_scanner(at[kvp]) for kvp in (120.0, 70.0)]
    )
    assert sampler.n_pairs == 8
    assert_paired(*sampler.draw(60, np.random.default_rng(0)))
    with pytest.raises(TrainingError, match=r"do not pair: series 1 of 1 .* 2 of the series"):
        sampler_of(tmp_path, [at[70.0]], [other_scanner(at[70.0])] * 2)


def test_unpaired_scans_are_refused_with_the_reason(tmp_path: Path) -> None:
    one = scan(0)
    for target, why in (
        (scan(1, frame="9.9"), "share no frame of reference; give scans of the same bodies"),
        (moved(one, z_mm=2.0), "nearest slices lie 2.00 mm apart, more than 0.1 mm"),
        (make_volume(body(0, 4), pixel_mm=0.8), r"0\.7000 x 0\.7000 mm against 0\.8000"),
    ):
        with pytest.raises(TrainingError, match=f"{why}.*an unpaired method such as"):
            sampler_of(tmp_path, [one], [target])


def test_pairs_without_tissue_are_refused(tmp_path: Path) -> None:
    half = scan(0, 4)
    half.hu[:2] = -1000
    with pytest.raises(TrainingError, match=r"no patch of 24 px .* in the 2 slices of the source"):
        sampler_of(tmp_path, [half], [other_scanner(half).select([0, 1]), scan(1, frame="2.2")])


def test_what_is_paired_by_position_alone_is_said(tmp_path: Path) -> None:
    known = sampler_of(tmp_path, [scan(0)], [scan(0)])
    assert known.notes == ()
    (note,) = sampler_of(tmp_path, [scan(0, frame="")], [scan(0)]).notes
    assert "no frame of reference" in note


def test_held_out_patients_are_held_out_in_both_domains(tmp_path: Path) -> None:
    """Those without a partner have no say: the one patient who has none is in neither part."""
    source = [scan(i, 3, f"1.{i}", f"p{i}") for i in range(6)]
    target = [other_scanner(each) for each in source[::-1] if each.patient != "p2"]
    sampler = sampler_of(tmp_path, source, target)
    seen = set()
    for seed in range(8):
        parts = sampler.split(0.3, np.random.default_rng(seed))
        assert "of 5 patients" in parts.how
        assert "of 15 slices" in parts.how
        who = []
        for part in (parts.training, parts.validation):
            sides = [
                {store.facts[store.series[number]].patient for number in part.pairs[:, side]}
                for side, store in enumerate(part.stores)
            ]
            assert sides[0] == sides[1]
            assert_paired(*part.draw(20, np.random.default_rng(0)))
            who.append(sides[0])
        assert who[0].isdisjoint(who[1])
        assert who[0] | who[1] == {"p0", "p1", "p3", "p4", "p5"}
        seen.add(frozenset(who[1]))
    assert len(seen) > 1


def test_the_only_patient_is_parted_by_height_in_both_domains(tmp_path: Path) -> None:
    volume = scan(0, 10, patient="p")
    sampler = sampler_of(tmp_path, [volume], [other_scanner(volume).select([*range(9, -1, -1)])])
    parts = sampler.split(0.2, np.random.default_rng(0))
    for side, store in enumerate(sampler.stores):
        assert sorted(store.z_mm[parts.validation.pairs[:, side]]) == [40, 45]
        assert max(store.z_mm[parts.training.pairs[:, side]]) == 30
    with pytest.raises(TrainingError, match="4 slices of one patient are too few"):
        sampler_of(tmp_path, [volume], [other_scanner(volume).select([0, 1, 2, 3])]).split(
            0.9, np.random.default_rng(0)
        )


def test_an_unnamed_body_at_several_voltages_is_one_patient(tmp_path: Path) -> None:
    """Else the target's slices, each the partner of two, would be learned from and held out."""
    source = [scan(0, 10, kvp=kvp) for kvp in (70.0, 120.0)]
    sampler = sampler_of(tmp_path, source, [other_scanner(scan(0, 10))])
    assert sampler.n_pairs == 20
    parts = sampler.split(0.2, np.random.default_rng(0))
    assert "only patient" in parts.how
    assert set(parts.training.pairs[:, 1]).isdisjoint(parts.validation.pairs[:, 1])


def test_stores_opened_again_pair_and_hold_no_identifier(tmp_path: Path) -> None:
    """A frame of reference is the same hash in both stores, and no UID."""
    frame = "1.2.840.99.123456"
    source, target = stores(tmp_path, [scan(0, frame=frame)], [scan(0, frame=frame)])
    written = [json.loads((store.folder / INDEX).read_text()) for store in (source, target)]
    hashes = [each["series"][0]["geometry"]["frame_of_reference"] for each in written]
    assert hashes[0] == hashes[1]
    assert frame not in json.dumps(written)
    again = Store(source.folder, source.facts, source.fingerprint)
    assert again.entries[0].acquisition == scan(0).acquisition
    np.testing.assert_array_equal(
        again.entries[0].geometry.positions_mm, scan(0).geometry.positions_mm
    )
    sampler = pickle.loads(pickle.dumps(PairSampler.of(again, target, WINDOW)))
    assert sampler.n_pairs == 4


def test_domains_of_other_pixels_pair_when_resampled(tmp_path: Path) -> None:
    fine = scan(0)
    source = open_store(tmp_path / "a", [fine], PatchRule(16), 1.0)
    target = open_store(tmp_path / "b", [fine], PatchRule(16), 1.0)
    sampler = PairSampler.of(source, target, WINDOW)
    a, b = sampler.draw(10, np.random.default_rng(0))
    assert np.array_equal(a, b)
    assert source.entries[0].geometry.pixel_mm == (1.0, 1.0)
