"""Slices for the report's viewer, whose HU the page itself shows in a window.

A PNG holds HU + 32,768 in its red (high byte) and green (low byte) channels. The browser decodes
it without loss, so that one image serves every window and the differences.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from cvsct.core.masks import BONE_WINDOW, LUNG_WINDOW, NETWORK_WINDOW, SOFT_TISSUE_WINDOW
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.report.examples import Example

OFFSET_HU = 32_768
"""Offset that makes all HU positive."""

PNG_LEVEL = 4
"""Compression of the images: level 9 takes ten times as long and saves 2 to 4 % of their size."""

WINDOWS: dict[str, tuple[float, float]] = {
    "soft tissue": SOFT_TISSUE_WINDOW.limits_hu,
    "lung": LUNG_WINDOW.limits_hu,
    "bone": BONE_WINDOW.limits_hu,
    "whole range": NETWORK_WINDOW.limits_hu,
}
"""Lower and upper end of each window in HU; the first one is shown at the beginning."""


def to_rgb(hu: Float[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "rows columns 3"]:
    """Encode rounded HU as two bytes, in red and green."""
    code = np.clip(np.rint(hu) + OFFSET_HU, 0, 65_535).astype(np.uint16)
    return np.stack([code >> 8, code & 255, np.zeros_like(code)], axis=-1).astype(np.uint8)


def slices_for(examples: Sequence[Example], labels: dict[str, str]) -> list[dict[str, Any]]:
    """Names, reasons and images of example slices for the page's script.

    Args:
        labels: sides to show, with their labels.
    """
    return [
        {
            "name": example.name,
            "reasons": example.reasons,
            "sides": {
                labels[side]: _png(to_rgb(volume.hu[example.index]))
                for side in labels
                if (volume := getattr(example.shared, side)) is not None
            },
        }
        for example in examples
    ]


def _png(rgb: UInt8[np.ndarray, "rows columns 3"]) -> str:
    stream = io.BytesIO()
    load_extra("PIL.Image").fromarray(rgb).save(stream, format="PNG", compress_level=PNG_LEVEL)
    return base64.b64encode(stream.getvalue()).decode("ascii")
