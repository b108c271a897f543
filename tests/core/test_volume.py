from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvsct.core.errors import GeometryError
from cvsct.core.volume import Acquisition, HUWindow
from tests.conftest import make_volume


def test_the_window_is_the_papers_formula() -> None:
    hu = np.array([-1200.0, -1000.0, -50.0, 900.0, 2000.0])
    expected = (np.clip(hu, -1000, 900) + 1000) / 950 - 1
    assert HUWindow().to_unit(hu) == pytest.approx(expected)
    assert HUWindow().to_fraction(hu) == pytest.approx((expected + 1) / 2)


def test_voxels_outside_the_window_come_back_unchanged() -> None:
    hu = np.array([-1024.0, -1000.0, 0.0, 900.0, 1500.0], dtype=np.float32)
    window = HUWindow()
    assert window.restore(window.to_unit(hu), hu) == pytest.approx(hu, abs=1e-3)
    other = window.restore(np.zeros_like(hu), hu)
    assert other.tolist() == [-1024, -50, -50, -50, 1500]
    assert window.to_unit(hu).dtype == np.float32


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        HUWindow(100.0, 100.0)


def test_a_volume_keeps_its_geometry_and_rejects_another_shape() -> None:
    volume = make_volume(np.zeros((3, 4, 5)))
    assert volume.with_hu(np.ones((3, 4, 5), dtype=np.float32)).geometry is volume.geometry
    with pytest.raises(GeometryError, match=r"\(2, 4, 5\)"):
        volume.with_hu(np.ones((2, 4, 5), dtype=np.float32))
    with pytest.raises(GeometryError, match="2 slice positions"):
        replace(volume, geometry=volume.select([0, 1]).geometry)


def test_selecting_slices_takes_their_positions_along() -> None:
    volume = make_volume(np.arange(4)[:, None, None] * np.ones((1, 2, 2)), spacing_mm=5.0)
    part = volume.select(slice(1, 3))
    assert part.geometry.z_mm.tolist() == [5.0, 10.0]
    assert part.hu[:, 0, 0].tolist() == [1, 2]
    assert part.geometry.spacing_mm == 5.0


def test_an_acquisition_reads_as_a_line() -> None:
    assert str(Acquisition("GE", "VCT", "LUNG", 120.0)) == "GE VCT, kernel LUNG, 120 kVp"
    assert str(Acquisition("Maker", "Maker One")) == "Maker One"
    assert str(Acquisition("Maker")) == "Maker"
    assert str(Acquisition()) == "unknown scanner"
