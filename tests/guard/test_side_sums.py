"""What the guard knows of a side from sums: the mean of its scans, and how far apart they are."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.guard.descriptor import FREQUENCIES_PER_MM, N_ANATOMY, TISSUE_EDGES_HU, Descriptor
from cvsct.guard.input_check import FLOORS, MARGIN, Headers, nearest
from cvsct.guard.side_sums import LARGEST_SD, MOST_TIMES, GuardSums

N = len(FREQUENCIES_PER_MM) - N_ANATOMY
HEADERS = Headers(("Maker",), ("K1",), (120.0,), (0.7, 0.7), (3.0, 3.0))


def scan(
    rng: np.random.Generator, level_sd_db: float = 1.0, shape_sd_db: float = 0.0
) -> Descriptor:
    noise = 20 + rng.normal(0, level_sd_db) + rng.normal(0, shape_sd_db, N)
    tissue = rng.dirichlet(np.full(len(TISSUE_EDGES_HU) - 1, 50.0))
    return Descriptor(noise, tissue)


def sums(scans: list[Descriptor], first: int = 0) -> GuardSums:
    return GuardSums.of(scans, [f"patient {first + i}" for i in range(len(scans))])


def test_a_side_is_the_mean_of_its_scans() -> None:
    rng = np.random.default_rng(1)
    scans = [scan(rng) for _ in range(20)]
    (known,) = sums(scans).reference(HEADERS, "20 series").descriptors
    np.testing.assert_allclose(known.noise_db, np.mean([s.noise_db for s in scans], axis=0))
    np.testing.assert_allclose(known.tissue, np.mean([s.tissue for s in scans], axis=0))


def test_sums_of_two_groups_are_those_of_all() -> None:
    rng = np.random.default_rng(2)
    scans = [scan(rng) for _ in range(9)]
    joined = (sums(scans[:4]) + sums(scans[4:], first=4)).reference(HEADERS, "")
    together = sums(scans).reference(HEADERS, "")
    np.testing.assert_allclose(joined.descriptors[0].noise_db, together.descriptors[0].noise_db)
    assert joined.limits == together.limits


def test_limits_follow_from_the_spread_of_the_scans() -> None:
    rng = np.random.default_rng(3)
    level_sd, shape_sd = 8.0, 1.5
    side = sums([scan(rng, level_sd, shape_sd) for _ in range(4000)]).reference(HEADERS, "")
    level = np.hypot(level_sd, shape_sd / np.sqrt(N))
    assert side.limits.noise_db == pytest.approx(MARGIN * LARGEST_SD * level, rel=0.05)
    shape = shape_sd * np.sqrt(1 - 1 / N)
    assert side.limits.sharpness_db == pytest.approx(MARGIN * LARGEST_SD * shape, rel=0.05)


def test_scans_of_many_kernels_do_not_let_all_pass() -> None:
    rng = np.random.default_rng(8)
    side = sums([scan(rng, 40.0, 20.0) for _ in range(200)]).reference(HEADERS, "")
    assert side.limits.noise_db == MOST_TIMES * FLOORS.noise_db
    assert side.limits.sharpness_db == MOST_TIMES * FLOORS.sharpness_db


def test_scans_that_are_alike_have_the_smallest_limits() -> None:
    rng = np.random.default_rng(4)
    side = sums([scan(rng, 0.1, 0.1) for _ in range(10)]).reference(HEADERS, "")
    assert side.limits == FLOORS


def test_the_spread_of_tissue_is_the_divergence_of_scans_from_their_mean() -> None:
    rng = np.random.default_rng(5)
    scans = [scan(rng) for _ in range(400)]
    side = sums(scans).reference(HEADERS, "")
    measured = np.mean([nearest(s, side.descriptors).tissue_nats for s in scans])
    assert side.held_out.tissue_nats / LARGEST_SD**2 == pytest.approx(measured, rel=0.2)


def test_scans_without_homogeneous_tissue_count_for_tissue_alone() -> None:
    rng = np.random.default_rng(6)
    scans = [scan(rng) for _ in range(5)]
    blind = Descriptor(np.full(N, np.nan), scans[0].tissue)
    side = sums([*scans, blind]).reference(HEADERS, "")
    np.testing.assert_allclose(
        side.descriptors[0].noise_db, np.mean([s.noise_db for s in scans], axis=0)
    )
    nothing = sums([blind, blind]).reference(HEADERS, "")
    assert not nothing.descriptors[0].knows_noise
    assert nothing.limits == FLOORS


def test_one_scan_has_no_spread_and_the_smallest_limits() -> None:
    side = sums([scan(np.random.default_rng(7))]).reference(HEADERS, "")
    assert side.limits == FLOORS
    assert side.held_out.noise_db == side.held_out.tissue_nats == 0
