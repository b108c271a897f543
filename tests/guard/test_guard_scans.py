"""The guard of scans against known noise, shares worked out by hand, and planted faults."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cvsct.core.errors import UsageError
from cvsct.core.volume import Acquisition, CTVolume, ScanFacts
from cvsct.guard.descriptor import (
    FLOOR_HU2_MM2,
    FREQUENCIES_PER_MM,
    N_ANATOMY,
    TISSUE_EDGES_HU,
    UNSEEN_SHARE,
    Descriptor,
    describe,
    distance,
)
from cvsct.guard.input_check import FLOORS, MARGIN, SideReference, round_up
from cvsct.guard.overrides import Overrides
from cvsct.guard.scan_verdict import ScanVerdict, judge_scan
from tests.conftest import make_volume, phantom_hu

N_NOISE = len(FREQUENCIES_PER_MM) - N_ANATOMY
N_TISSUE = len(TISSUE_EDGES_HU) - 1
PIXEL_MM = 0.7


def water(noise_hu: float, seed: int = 0, slices: int = 4, size_px: int = 160) -> CTVolume:
    """A disc of water in air, with white noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size_px, :size_px] - size_px / 2
    hu = np.where(np.hypot(x, y) < 0.45 * size_px, 0.0, -1000.0)
    return make_volume(hu + rng.normal(0, noise_hu, (slices, size_px, size_px)))


def descriptor_of(volume: CTVolume) -> Descriptor:
    return describe(volume.select([i]) for i in range(len(volume.hu)))


def made(noise_db: float, tilt_db: float = 0.0, bins: dict[int, float] | None = None) -> Descriptor:
    """A descriptor by level of noise, its fall to both sides of the middle, shares of tissue."""
    tissue = np.zeros(N_TISSUE)
    for number, share in (bins or {10: 1.0}).items():
        tissue[number] = share
    return Descriptor(noise_db + tilt_db * np.linspace(-1, 1, N_NOISE), tissue)


def side_of(volumes: Sequence[CTVolume]) -> SideReference:
    return SideReference.learn(
        list(map(ScanFacts.of, volumes)), list(map(descriptor_of, volumes)), "these"
    )


def test_white_noise_is_read_as_its_power_at_every_frequency() -> None:
    """Variance times pixel area (ICRU 87), and nothing of air or skin."""
    found = descriptor_of(water(20.0)).noise_db
    wanted = 10 * math.log10(20.0**2 * PIXEL_MM**2 + FLOOR_HU2_MM2)
    known = np.isfinite(found)
    assert known.sum() >= 10
    assert np.abs(found[known] - wanted).max() < 0.6
    assert not np.isfinite(found[np.array(FREQUENCIES_PER_MM[N_ANATOMY:]) > 1.01 / PIXEL_MM]).any()


def test_twice_the_noise_is_six_decibels_of_the_same_sharpness() -> None:
    found = distance(descriptor_of(water(40.0)), descriptor_of(water(20.0, seed=1)))
    assert found.noise_db == pytest.approx(20 * math.log10(2), abs=0.3)
    assert found.sharpness_db < 0.4


def test_sharpness_is_the_spread_of_the_difference_and_tissue_a_divergence() -> None:
    tilt = np.linspace(-1, 1, N_NOISE)
    found = distance(made(5, 3.0, {10: 0.75, 12: 0.25}), made(2, 0.0, {10: 0.25, 12: 0.75}))
    assert found.noise_db == pytest.approx(3)
    assert found.sharpness_db == pytest.approx(3 * np.sqrt(np.mean(tilt**2)))
    unseen = UNSEEN_SHARE / N_TISSUE
    high, low = (1 - UNSEEN_SHARE) * np.array([0.75, 0.25]) + unseen
    assert found.tissue_nats == pytest.approx((high - low) * np.log(high / low))


def test_a_limit_is_a_margin_over_what_was_left_out_or_the_floor() -> None:
    facts = [ScanFacts.of(water(20.0))]
    near, far = (
        SideReference.learn(facts, [made(0), made(x), made(2 * x)], "") for x in (1.0, 9.0)
    )
    assert near.held_out.noise_db == 1
    assert near.limits == FLOORS
    assert far.limits == replace(FLOORS, noise_db=9 * MARGIN)
    alone = SideReference.learn(facts, [made(0)], "")
    assert alone.limits == FLOORS
    assert alone.held_out.noise_db == 0


def test_what_is_known_comes_back_from_json() -> None:
    side = side_of([water(20.0), make_volume(np.full((2, 32, 32), -1000.0))])
    again = SideReference.from_json(side.to_json(), {**vars(side.limits)})
    assert again.headers == side.headers
    assert again.to_json() == side.to_json()
    assert [descriptor.knows_tissue for descriptor in again.descriptors] == [True, False]
    assert [descriptor.knows_noise for descriptor in again.descriptors] == [True, False]


KNOWN = side_of([make_volume(phantom_hu(seed, 0.0, 3)) for seed in (1, 2)])
SOFTER = side_of([make_volume(phantom_hu(seed, 0.8, 3)) for seed in (4, 5)])
OTHER = make_volume(phantom_hu(3, 0.0, 3))


def judge(volume: CTVolume, target: SideReference = SOFTER) -> ScanVerdict:
    return judge_scan(ScanFacts.of(volume), descriptor_of(volume), KNOWN, target, Overrides())


def test_another_body_on_the_same_scanner_is_alike() -> None:
    verdict = judge(OTHER)
    assert verdict.kind == "in_domain"
    assert verdict.reasons == verdict.unknown == ()
    assert verdict.position == pytest.approx(1, abs=0.1)


def disc(hu: np.ndarray) -> np.ndarray:
    return water(45.0, slices=len(hu), size_px=hu.shape[1]).hu


PLANTED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], set[str]]] = {
    "smoothed": (lambda hu: ndimage.gaussian_filter(hu, (0, 2, 2)), {"noise_db", "sharpness_db"}),
    "sharpened": (
        lambda hu: hu + 3 * (hu - ndimage.gaussian_filter(hu, (0, 1, 1))), {"noise_db"},
    ),
    "noisy": (
        lambda hu: hu + np.random.default_rng(0).normal(0, 200, hu.shape),
        {"noise_db", "sharpness_db"},
    ),
    "1000 HU too high": (lambda hu: hu + 1000, {"tissue_nats"}),
    "1000 HU too low": (lambda hu: hu - 1000, {"body"}),
    "a thousandth": (lambda hu: hu / 1000, {"tissue_nats"}),
    "water": (disc, {"sharpness_db"}),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(PLANTED))
def test_planted_faults_are_refused_and_pass_with_the_words_given(fault: str) -> None:
    spoil, names = PLANTED[fault]
    bad = OTHER.with_hu(spoil(OTHER.hu).astype(np.float32))
    facts, descriptor = ScanFacts.of(bad), descriptor_of(bad)
    verdict = judge_scan(facts, descriptor, KNOWN, SOFTER, Overrides())
    assert verdict.kind == "out_of_domain"
    assert names <= {each.name for each in verdict.reasons}
    words = verdict.refusal().partition("let it pass with ")[2].split(" ")
    assert words[::2] == ["--guard"] * len(verdict.reasons)
    passed = judge_scan(facts, descriptor, KNOWN, SOFTER, Overrides.parse(words[1::2]))
    assert passed.kind != "out_of_domain"
    assert not passed.reasons


def test_a_scan_that_is_the_targets_already_is_told_and_not_refused() -> None:
    verdict = judge(make_volume(phantom_hu(6, 0.8, 3)))
    assert verdict.kind == "at_target"
    assert verdict.position == pytest.approx(0, abs=0.1)


HEADERS: dict[str, tuple[dict[str, object], set[str]]] = {
    "another vendor": ({"manufacturer": "Other Medical"}, {"manufacturer"}),
    "another name of the vendor": ({"manufacturer": "MAKER Healthcare"}, set()),
    "another kernel": ({"kernel": "K2"}, {"kernel"}),
    "the kernel in other letters": ({"kernel": " k1"}, set()),
    "20 kV more": ({"kvp": 140.0}, set()),
    "40 kV less": ({"kvp": 80.0}, {"kvp_kv"}),
    "1.4 times the pixels": ({"pixel_mm": 0.98}, set()),
    "a third of the pixels more": ({"pixel_mm": 1.07}, {"pixel_factor"}),
    "2 mm slices": ({"thickness_mm": 2.0}, {"thickness_factor"}),
    "10 mm slices": ({"thickness_mm": 10.0}, set()),
    "no headers": ({"manufacturer": "", "kernel": "", "kvp": 0.0, "thickness_mm": 0.0}, set()),
}


@pytest.mark.parametrize("what", list(HEADERS))
def test_headers_refuse_what_is_known_to_differ(what: str) -> None:
    told, names = HEADERS[what]
    facts, descriptor = ScanFacts.of(OTHER), KNOWN.descriptors[0]
    made_by: dict[str, object] = {
        **vars(facts.acquisition), **{k: v for k, v in told.items() if k in vars(Acquisition())}
    }  # fmt: skip
    pixel_mm = told.get("pixel_mm", PIXEL_MM)
    facts = replace(
        facts,
        acquisition=Acquisition(**made_by),  # type: ignore[arg-type]
        pixel_mm=(pixel_mm, pixel_mm),
        thickness_mm=told.get("thickness_mm", facts.thickness_mm),
    )
    verdict = judge_scan(facts, descriptor, KNOWN, KNOWN, Overrides())
    assert {each.name for each in verdict.reasons} == names
    assert (verdict.kind == "out_of_domain") == bool(names)
    missing = {"manufacturer", "kernel", "kvp_kv", "thickness_factor"}
    assert set(verdict.unknown) == (missing if what == "no headers" else set())


def test_headers_of_the_other_side_make_a_scan_like_the_target() -> None:
    renamed = replace(SOFTER, headers=replace(SOFTER.headers, kernels=("K2",)))
    kernel = replace(OTHER, acquisition=replace(OTHER.acquisition, kernel="K2"))
    assert judge(kernel, renamed).kind == "at_target"
    assert judge(kernel).kind == "out_of_domain"


def test_a_scan_without_tissue_passes_where_none_was_learned() -> None:
    empty = make_volume(np.full((2, 64, 64), -1000.0))
    side = side_of([empty])
    verdict = judge_scan(ScanFacts.of(empty), descriptor_of(empty), side, side, Overrides())
    assert verdict.kind == "in_domain"  # by its headers
    assert verdict.position is None
    assert {"noise_db", "sharpness_db", "tissue_nats"} <= set(verdict.unknown)


def test_numbers_suggested_are_short_and_never_below() -> None:
    rng = np.random.default_rng(0)
    for value in [*np.exp(rng.uniform(-3, 8, 200)).tolist(), 6.4, 20.0, 7.0]:
        suggested = float(round_up(value))
        assert value <= suggested <= 1.1 * value
        assert len(round_up(value).replace(".", "").strip("0")) <= 2


def test_overrides_are_read_and_wrong_ones_refused() -> None:
    overrides = Overrides.parse(["noise_db=7", "kernel=off", "noise_db=9", "grid_ratio=off"])
    assert overrides.values == {"noise_db": 9.0, "grid_ratio": math.inf}
    assert overrides.off == {"kernel"}
    assert overrides.apply_to(FLOORS) == replace(FLOORS, noise_db=9.0)
    assert overrides.actions == {"scan": "refuse", "slices": "flag"}
    assert Overrides.parse(["off"]).actions == {"scan": "off", "slices": "off"}
    assert Overrides.parse(["scan=note", "slices=refuse"]).actions == {
        "scan": "note", "slices": "refuse",
    }  # fmt: skip
    for word, told in (
        ("noise=3", "one of scan, slices, manufacturer"),
        ("noise_db=loud", "expected a number"),
        ("noise_db=-1", "expected a number"),
        ("noise_db=nan", "expected a number"),
        ("kernel=B40f", "can only be off"),
        ("slices=note", "slices is flag, refuse or off"),
        ("", "expected off"),
    ):
        with pytest.raises(UsageError, match=told):
            Overrides.parse([word])
