"""Commands run in-process, and trainings small enough for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cvsct.methods import METHODS
from cvsct.models.bundle import Bundle

Run = Callable[..., tuple[int, str, str]]
"""Takes the words of a command; gives exit code, stdout and stderr."""

TINY = (
    *("generator.width=8", "generator.reduction=4", "patch_px=24", "batch=2", "precision=fp32"),
    *("discriminator.widths=[8,8]", "discriminator.strides=[2,1]"),
    *("generator.hold_low_px=2", "validation_patches=8"),
)


def options(method: str) -> list[str]:
    """Settings that make a training tiny."""
    if METHODS[method].kind == "classical":
        return []
    pairs = [*TINY, 'domain.layers=["relu2_1"]']
    return ["--max-steps", "2", *(word for pair in pairs for word in ("--set", pair))]


def train(run: Run, method: str, scans: Path, out: Path) -> Bundle:
    code, _, err = run(
        "train", method, "--source", scans / "sharp", "--target", scans / "soft", "--out", out,
        *options(method),
    )  # fmt: skip
    assert code == 0, err
    return Bundle.read(out)
