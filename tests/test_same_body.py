"""Whether images show one body: kernels, noise and doses must not matter, other bodies must."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cvsct.io.dicom import read_all
from cvsct.same_body import LEAST_CORRELATION, Likeness, likeness
from tests.bodies import noise, seen, trunk

PIXEL_MM = 1.4
Z_MM = np.arange(6) * 5.0


def body(seed: int, heights: range = range(6), sigma_px: float = 0.6) -> np.ndarray:
    """Slices between two trunks: the lungs' vessels and the outline change with the height."""
    below, above = trunk(seed), ndimage.zoom(trunk(seed + 100), 1, order=0)
    fine = []
    for height in heights:
        grown = ndimage.affine_transform(
            below if height % 2 else above, np.eye(2) * (1 - 0.02 * height),
            offset=0.01 * height * len(below), order=0, cval=-1000.0,
        )  # fmt: skip
        fine.append(seen(grown, sigma_px))
    return np.stack(fine)


def noisy(hu: np.ndarray, sd_hu: float, seed: int = 0) -> np.ndarray:
    return hu + noise(hu.shape, sd_hu, 0.25, np.random.default_rng(seed))


def alike(a: np.ndarray, b: np.ndarray, pixel_mm: float = PIXEL_MM) -> Likeness:
    slices = [(i, i) for i in range(min(len(a), len(b)))]
    return likeness(a.__getitem__, b.__getitem__, slices, Z_MM[: len(b)], pixel_mm)


BODY = body(1)


@pytest.mark.parametrize(
    "other",
    [
        body(1, sigma_px=1.4),
        noisy(BODY, 60.0),
        noisy(body(1, sigma_px=1.4), 200.0),
        noisy(BODY, 250.0),
        1.04 * BODY + 12,
        np.clip(BODY, -1000, 1000),
    ],
    ids=["kernel", "noise", "kernel and dose", "very low dose", "calibration", "clipped"],
)
def test_one_body_is_known_again(other: np.ndarray) -> None:
    found = alike(noisy(BODY, 30.0, 1), other)
    assert found.difference == ""
    assert found.correlation is not None
    assert found.correlation > LEAST_CORRELATION + 0.02


@pytest.mark.parametrize("pixel_mm", [0.6, 1.4, 2.8])
def test_another_body_is_told(pixel_mm: float) -> None:
    y, x = np.mgrid[:256, :256] - 127.5
    stranger = np.where((x / 80) ** 2 + (y / 105) ** 2 < 1, 40.0, -1000.0)
    stranger[((x - 30) / 18) ** 2 + (y / 60) ** 2 < 1] = -850
    found = alike(BODY, np.stack([noisy(stranger, 20.0)] * 6), pixel_mm)
    assert "different bodies" in found.difference


def test_another_height_of_the_body_is_told() -> None:
    sharp, soft = noisy(body(1, range(8)), 40.0), body(1, range(8), 1.2)
    assert alike(sharp[:6], soft[:6]).difference == ""
    assert "other heights" in alike(sharp[:6], soft[2:]).difference
    assert "better 2 slices away" in alike(sharp[:6], soft[2:]).difference


@pytest.mark.parametrize(("shift_px", "said"), [(1, ""), (3, "apart in plane"), (8, "apart")])
def test_a_shift_in_plane_is_told_from_2_mm_on(shift_px: int, said: str) -> None:
    moved = np.roll(noisy(BODY, 20.0), shift_px, axis=2)
    found = alike(BODY, moved)
    assert found.shift_mm == pytest.approx(shift_px * PIXEL_MM)
    assert said in found.difference
    assert bool(found.difference) == bool(said)


def test_the_order_of_slices_plays_no_part() -> None:
    order = [3, 0, 5, 1, 4, 2]
    slices = [(i, order.index(i)) for i in range(6)]
    mixed = BODY[order]
    found = likeness(BODY.__getitem__, mixed.__getitem__, slices, Z_MM[order], PIXEL_MM)
    assert (found.correlation, found.steps, found.difference) == (pytest.approx(1.0), 0, "")


def test_images_that_show_nothing_are_not_accused() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((3, 64, 64), 40.0)
    water = flat + rng.normal(0, 40, flat.shape)
    for a, b in ((flat, flat), (flat, water), (water, flat + rng.normal(0, 40, flat.shape))):
        assert alike(a, b) == Likeness(None)
        assert alike(a, b).difference == ""


@pytest.mark.shared
def test_real_kernels_pair_and_real_patients_do_not(shared: Path) -> None:
    """One acquisition, two kernels, and eight other patients."""
    sharp, soft = (
        read_all(shared / f"real_ct/siemens_sensation10/{kernel}")[0] for kernel in ("B70f", "B40f")
    )
    pairs = [(i, i) for i in range(len(sharp.hu))]
    z_mm = soft.geometry.z_mm
    same = likeness(sharp.hu.__getitem__, soft.hu.__getitem__, pairs, z_mm, soft.pixel_mm)
    assert same.correlation is not None
    assert same.correlation > 0.99
    for up in (1, 2, 15):
        higher = soft.hu[up:]
        found = likeness(
            sharp.hu.__getitem__, higher.__getitem__, pairs[:-up], z_mm[:-up], soft.pixel_mm
        )
        assert found.difference
    slices = [
        read_all(path)[0] for path in sorted((shared / "real_ct/ge_lightspeed_vct").iterdir())
    ]
    one = [(0, 0)]
    for i, a in enumerate(slices):
        for b in slices[:i]:
            found = likeness(a.hu.__getitem__, b.hu.__getitem__, one, b.geometry.z_mm, b.pixel_mm)
            assert found.correlation is not None
            assert found.correlation < 0.5
