"""Log of a training: JSON lines always, TensorBoard where it is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.files import JsonLines, write_atomic

LOG = "train.jsonl"
VALIDATION_LOG = "validation.jsonl"
BOARD_FOLDER = "tensorboard"
BOARD_EVERY_S = 1.0
"""Shortest time between TensorBoard's scalars; the JSON lines hold every step."""

Picture = Float[np.ndarray, "rows columns"]


class TrainingLog:
    """Log of a training, from its first step or from where it was resumed.

    Args:
        folder: the model folder; `train.jsonl` gets a line a step, `validation.jsonl` one a
            validation, `tensorboard/` scalars and pictures.
        steps: how many steps were done before.
        writes: False for all ranks but the first.
    """

    def __init__(self, folder: Path, steps: int = 0, writes: bool = True) -> None:
        self._log = JsonLines(folder / LOG) if writes else None
        self._validations = JsonLines(folder / VALIDATION_LOG) if writes else None
        self._board = _open_board(folder / BOARD_FOLDER, steps) if writes else None
        self._shown_at = -np.inf

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._board is not None:
            self._board.close()

    def step(self, steps: int, values: Mapping[str, float]) -> None:
        """Log one step's loss terms, gradient norms, learning rates and times."""
        if self._log is not None:
            self._log.write(step=steps, **values)
        if self._board is not None and time.monotonic() - self._shown_at >= BOARD_EVERY_S:
            self._shown_at = time.monotonic()
            self._scalars("training", steps, values)

    def validation(self, steps: int, figures: Mapping[str, float]) -> None:
        """Log what a validation measured."""
        if self._validations is not None:
            self._validations.write(step=steps, **figures)
        self._scalars("validation", steps, figures)

    def pictures(self, steps: int, pictures: Mapping[str, Picture]) -> None:
        """Show images in [0, 1] on TensorBoard, under their names."""
        if self._board is not None:
            for name, picture in pictures.items():
                self._board.add_image(name, picture[None], steps)
            self._board.flush()

    @property
    def shows_pictures(self) -> bool:
        """Whether there is a TensorBoard to show them on."""
        return self._board is not None

    def _scalars(self, group: str, steps: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, steps)


def last_means(folder: Path, steps: int) -> dict[str, float]:
    """Mean of each logged value over the last tenth of the steps, at least ten.

    A value that only some steps have, such as a discriminator's that rests, is a mean over these.
    """
    last = [json.loads(line) for line in _lines(folder / LOG)[-max(10, steps // 10) :]]
    names = dict.fromkeys(name for values in last for name in values)
    return {
        name: float(np.mean([values[name] for values in last if name in values]))
        for name in names
        if name not in {"step", "minutes"}
    }


def forget_later(folder: Path, steps: int) -> None:
    """Drop log lines of steps after `steps`, and an incomplete last line."""
    for path in (folder / LOG, folder / VALIDATION_LOG):
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= steps]
        if kept or path.exists():
            write_atomic(path, "".join(kept))


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith("\n")]


def _open_board(folder: Path, steps: int) -> Any:
    """TensorBoard's writer, which hides what an earlier process wrote of later steps; or None."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=steps + 1 if steps else None)
