"""Shared by all tests: shapes and types checked at run time, small volumes, the real CT's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jaxtyping import install_import_hook

with install_import_hook("cvsct", "beartype.beartype"):
    import cvsct.volume  # noqa: F401

from cvsct.volume import Acquisition, CTVolume, Geometry

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real CT, odd DICOM files and VGG weights."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: real CT and weights are not part of the repository")
    return SHARED


def make_volume(hu: np.ndarray, spacing_mm: float = 5.0, pixel_mm: float = 0.7) -> CTVolume:
    """An axial volume around an array of HU."""
    positions = np.zeros((len(hu), 3))
    positions[:, 2] = np.arange(len(hu)) * spacing_mm
    return CTVolume(
        hu=hu.astype(np.float32),
        geometry=Geometry(
            positions_mm=positions,
            row_direction=(1.0, 0.0, 0.0),
            column_direction=(0.0, 1.0, 0.0),
            pixel_mm=(pixel_mm, pixel_mm),
            thickness_mm=spacing_mm,
            frame_of_reference="1.2.3",
        ),
        acquisition=Acquisition("Maker", "Scanner", "K1", 120.0),
        series_uid="1.2.3.4",
    )
