"""The paper's figures, its Tables 2 and 3, for comparison by rank and trend.

They come from other scans of other bodies, so that their absolute values do not compare with those
of a benchmark. They are given as printed; `NOTES` names where they contradict themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER_CLASSES = {
    "firstorder": "First order",
    "glcm": "GLCM",
    "gldm": "GLDM",
    "glrlm": "GLRLM",
    "glszm": "GLSZM",
    "ngtdm": "NGTDM",
}
"""The feature classes that the paper reports, with its titles, in the order of its columns."""

QUALITY = ("psnr_db", "ssim", "ncc")
"""Keys of the figures of Table 3, in the order of its columns."""

NOTES = (
    "The paper's input row reads GLCM 0.18 in one direction and 0.018 in the other, for one pair.",
    "The paper's SSIM of the ablations (0.53 to 0.70) does not fit their PSNR and NCC.",
)


@dataclass(frozen=True)
class PublishedValue:
    """Mean and standard deviation of a figure as the paper prints them."""

    mean: float
    sd: float


def _row(names: tuple[str, ...], *values: tuple[float, float]) -> dict[str, PublishedValue]:
    return {name: PublishedValue(*value) for name, value in zip(names, values, strict=True)}


def _ccc(*values: tuple[float, float]) -> dict[str, PublishedValue]:
    return _row(tuple(PAPER_CLASSES), *values)


def _quality(*values: tuple[float, float]) -> dict[str, PublishedValue]:
    return _row(QUALITY, *values)


TABLE_2: dict[str, tuple[dict[str, PublishedValue], dict[str, PublishedValue]]] = {
    "input": (
        _ccc((0.89, 0.07), (0.18, 0.15), (0.28, 0.12), (0.62, 0.16), (0.31, 0.19), (0.22, 0.2)),
        _ccc((0.89, 0.07), (0.018, 0.15), (0.28, 0.12), (0.62, 0.16), (0.31, 0.19), (0.22, 0.2)),
    ),
    "cyclegan": (
        _ccc((0.98, 0.02), (0.24, 0.24), (0.53, 0.44), (0.74, 0.06), (0.24, 0.21), (0.41, 0.35)),
        _ccc((0.99, 0.01), (0.60, 0.15), (0.66, 0.18), (0.47, 0.12), (0.19, 0.18), (0.73, 0.26)),
    ),
    "cvsct-1": (
        _ccc((1.00, 0.00), (0.85, 0.14), (0.89, 0.28), (0.79, 0.21), (0.41, 0.05), (0.86, 0.18)),
        _ccc((1.00, 0.00), (0.82, 0.22), (0.81, 0.10), (0.83, 0.15), (0.79, 0.15), (0.95, 0.15)),
    ),
    "cvsct-2": (
        _ccc((1.00, 0.00), (0.81, 0.23), (0.85, 0.15), (0.80, 0.18), (0.77, 0.12), (0.82, 0.13)),
        _ccc((1.00, 0.00), (0.86, 0.12), (0.80, 0.11), (0.85, 0.10), (0.80, 0.12), (0.88, 0.11)),
    ),
    "cvsct": (
        _ccc((1.00, 0.00), (0.88, 0.11), (0.88, 0.12), (0.90, 0.14), (0.72, 0.22), (0.84, 0.16)),
        _ccc((1.00, 0.00), (0.93, 0.28), (0.87, 0.15), (0.86, 0.00), (0.75, 0.12), (0.92, 0.18)),
    ),
}
"""Concordance within regions by method: GE to Siemens, Siemens to GE."""

TABLE_3: dict[str, tuple[dict[str, PublishedValue], dict[str, PublishedValue]]] = {
    "input": (
        _quality((24.11, 0.62), (0.99, 0.02), (0.84, 0.05)),
        _quality((24.11, 0.62), (0.99, 0.02), (0.84, 0.05)),
    ),
    "cyclegan": (
        _quality((25.58, 0.14), (0.99, 0.24), (0.93, 0.06)),
        _quality((27.60, 0.75), (0.60, 0.01), (0.90, 0.08)),
    ),
    "cvsct-1": (
        _quality((26.62, 0.28), (0.53, 0.44), (0.95, 0.05)),
        _quality((27.22, 0.50), (0.66, 0.02), (0.92, 0.11)),
    ),
    "cvsct-2": (
        _quality((26.50, 0.25), (0.62, 0.33), (0.95, 0.04)),
        _quality((27.15, 0.32), (0.70, 0.04), (0.92, 0.12)),
    ),
    "cvsct": (
        _quality((26.75, 0.32), (0.99, 0.06), (0.97, 0.04)),
        _quality((27.69, 0.79), (0.99, 0.02), (0.96, 0.06)),
    ),
}
"""Image quality by method: GE to Siemens, Siemens to GE."""
