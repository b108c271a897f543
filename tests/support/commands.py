"""Commands run in-process, and trainings small enough for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cvsct.methods.registry import METHODS
from cvsct.model.bundle import Bundle

Run = Callable[..., tuple[int, str, str]]
"""Takes the words of a command; gives exit code, stdout and stderr."""

TINY = (
    *("patch_px=24", "batch=2", "precision=fp32", "validation_patches=8"),
    *("discriminator.widths=[8,8]", "discriminator.strides=[2,1]"),
)
TINY_CYCLE = (
    *("generator.width=8", "generator.reduction=4", "generator.hold_low_px=2"),
    'domain.layers=["relu2_1"]',
)
TINY_PAIRED = {
    "residual-cnn": ("generator.width=4", "generator.convolutions=3"),
    "unet": ("generator.width=4", "generator.depth=2"),
    "vgg-unet": ('generator.layers=["relu1_2","relu2_1"]', "generator.reduction=16"),
}


def options(method: str, steps: int = 2) -> list[str]:
    """Settings that make a training tiny."""
    row = METHODS[method]
    if row.kind == "classical":
        return []
    pairs = [*TINY, *TINY_CYCLE]
    if row.kind == "paired":
        pairs = [*TINY, *TINY_PAIRED[row.settings["generator.architecture"]]]
        if "alternation.phase_steps" in row.settings:
            pairs += ["alternation.phase_steps=1"]
    return ["--max-steps", str(steps), *(word for pair in pairs for word in ("--set", pair))]


def sides(method: str, scans: Path) -> list[object]:
    """Scans that the method can learn from, as words of the command."""
    root = scans / "pair" if METHODS[method].kind == "paired" else scans
    return ["--source", root / "sharp", "--target", root / "soft"]


def train(run: Run, method: str, scans: Path, out: Path) -> Bundle:
    code, _, err = run("train", method, *sides(method, scans), "--out", out, *options(method))
    assert code == 0, err
    return Bundle.read(out)
