"""Where a scan lies between two domains, and that the filter goes only the way that is left."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cvsct.core.errors import GeometryError
from cvsct.core.sampling import SAMPLE_SLICES, sample_of
from cvsct.core.spectra import AT_TARGET_BELOW, Position
from cvsct.core.volume import CTVolume
from cvsct.inference.streaming import harmonize_series
from cvsct.io.read import find_series
from cvsct.methods.spectrum.apply import load_spectrum
from cvsct.methods.spectrum.domain_position import (
    FULL_STRENGTH_FROM,
    LEAST_AXIS,
    remaining_share,
    scan_position,
)
from cvsct.methods.spectrum.train import train_spectrum
from cvsct.model.bundle import Bundle
from tests.conftest import make_volume
from tests.methods.test_classical import SHARP_MM, SOFT_MM, request, world
from tests.support.dicom_files import DERIVATION, only, write_series
from tests.support.streaming import finished


@lru_cache
def two_gains(**settings: object) -> Bundle:
    return train_spectrum(
        [world(1, SHARP_MM)], [world(2, SOFT_MM)], request("spectrum", **settings)
    )


@lru_cache
def sharp() -> CTVolume:
    return world(8, SHARP_MM)


@lru_cache
def soft() -> CTVolume:
    return world(9, SOFT_MM)


def change(volume: CTVolume, reverse: bool = False, **settings: object) -> float:
    mapping = load_spectrum(two_gains(**settings), reverse)
    return float(np.abs(mapping(volume) - volume.hu).mean())


def test_a_scan_reads_like_the_domain_it_comes_from() -> None:
    bundle = two_gains()
    assert scan_position(bundle, sharp()).position == pytest.approx(1, abs=0.1)
    assert scan_position(bundle, soft()).position == pytest.approx(0, abs=0.1)
    usual = scan_position(bundle, sharp()).off_axis
    odd = make_volume(ndimage.gaussian_filter(sharp().hu, (0, 4, 0)))
    assert scan_position(bundle, odd).off_axis > 3 * usual
    with pytest.raises(GeometryError, match="inside a patient"):
        scan_position(bundle, make_volume(np.full((1, 128, 128), -1000.0)))


def test_what_reads_like_the_target_is_left_alone_to_the_bit() -> None:
    assert change(soft()) == 0
    assert change(sharp(), reverse=True) == 0
    assert change(soft(), pass_through=False) > 1
    assert change(sharp(), reverse=True, pass_through=False) > 5


def test_a_source_scan_goes_all_the_way() -> None:
    for volume, reverse in ((sharp(), False), (soft(), True)):
        always = load_spectrum(two_gains(pass_through=False), reverse)(volume)
        assert np.array_equal(load_spectrum(two_gains(), reverse)(volume), always)


def test_what_has_been_harmonised_is_not_harmonised_again() -> None:
    mapping = load_spectrum(two_gains(), False)
    once = sharp().with_hu(mapping(sharp()))
    assert np.array_equal(mapping(once), once.hu)


def test_the_way_left_rises_evenly_between_target_and_source() -> None:
    def left(position: float, reverse: bool = False, axis: float = 2.0) -> float:
        return remaining_share(Position(position, 0.1, axis), reverse)

    assert [left(p) for p in (-0.3, 0.0, AT_TARGET_BELOW)] == [0, 0, 0]
    assert [left(p) for p in (FULL_STRENGTH_FROM, 1.0, 1.4)] == [1, 1, 1]
    assert left((AT_TARGET_BELOW + FULL_STRENGTH_FROM) / 2) == pytest.approx(0.5)
    assert left(0.9, reverse=True) == 0
    assert left(0.1, reverse=True) == 1
    assert left(0.0, axis=0.9 * LEAST_AXIS) == 1


def test_a_part_of_the_way_is_told() -> None:
    between = sharp().with_hu(0.3 * sharp().hu + 0.7 * world(8, SOFT_MM).hu)
    bundle = two_gains()
    share = remaining_share(scan_position(bundle, between), reverse=True)
    assert 0 < share < 1
    fitted = load_spectrum(bundle, True).fitted_to(between)
    assert f"{share:.0%} of the way" in fitted.remark
    assert (
        0 < np.abs(fitted(between) - between.hu).mean() < change(between, True, pass_through=False)
    )


def test_without_a_patient_the_filter_goes_all_the_way() -> None:
    air = make_volume(np.full((2, 128, 128), -1000.0))
    assert (
        "nothing to tell its texture by" in load_spectrum(two_gains(), False).fitted_to(air).remark
    )


def test_a_sample_is_spread_evenly_and_bounded() -> None:
    assert sample_of(1) == [0]
    assert sample_of(5) == [0, 1, 2, 3, 4]
    for n in (17, 100, 1000):
        taken = np.array(sample_of(n))
        assert len(taken) == SAMPLE_SLICES
        assert np.ptp(np.diff(taken)) <= 1
        assert abs(taken[0] - (n - 1 - taken[-1])) <= 1


def test_a_series_is_fitted_once_and_streams_to_the_same_bytes(tmp_path: Path) -> None:
    """More slices than are handed over at a time; the manifest says what was found."""
    stored = np.clip(np.rint(np.repeat(sharp().hu, 4, axis=0)) + 1024, 0, 4095)
    folder = write_series(tmp_path / "scans", stored=stored)
    (series,) = find_series(folder)
    whole = only(folder)
    for reverse, says in ((False, None), (True, "left as it is")):
        mapping = load_spectrum(two_gains(), reverse)
        out = tmp_path / f"out-{reverse}"
        outcome, _ = finished(harmonize_series(series, mapping, out, DERIVATION))
        assert np.array_equal(only(out).hu, np.rint(mapping(whole)))
        assert ("method" in outcome.guard) == (says is not None)
        assert says is None or says in outcome.guard["method"]
