"""Scans of few slices: pages are about commands, not about what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import phantom_hu
from tests.support.dicom_files import write_series

SLICES = 3


@pytest.fixture(scope="session")
def few_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of series: `sharp` and `soft` of two bodies, `pair` and `retest` of a third."""
    root = tmp_path_factory.mktemp("few_slices")
    for number, (name, seed, blur_px) in enumerate(
        (("sharp", 1, 0.0), ("soft", 2, 0.8), ("pair/sharp", 3, 0.0), ("pair/soft", 3, 0.8),
         ("retest", 3, 0.8))
    ):  # fmt: skip
        stored = (phantom_hu(seed, blur_px, SLICES) + 1024).astype("<u2")
        write_series(root / name, stored=stored, series=f"1.2.{number + 70}.1")
    return root
