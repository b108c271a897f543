"""The rows of the training step's benchmark: the reference, each improvement alone, and all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.plain_step import Plain
from cvsct.training.cyclegan.settings import CycleConfig, cycle_config

REFERENCE = "eager-fp32"


@dataclass(frozen=True)
class Configuration:
    """One row of the table.

    Args:
        plain: how `PlainStep` computes; `None` is the package's own step.
        batch: its own in place of the batches asked for.
    """

    what: str
    plain: Plain | None = None
    preset: str = "paper"
    settings: Mapping[str, Any] = field(default_factory=dict)
    cudnn_search: bool = False
    batch: int | None = None


_RELU4_1 = {"domain.layers": ["relu4_1"]}
_DIRECT = {"convolution": "direct"}
_HALF_CRITIC = {"discriminator.widths": [32, 64, 128, 256, 256, 256, 256]}
CONFIGURATIONS: dict[str, Configuration] = {
    REFERENCE: Configuration("NCHW, every pass its own call, plain Adam, fp32", Plain()),
    "channels-last": Configuration("reference, NHWC", Plain(channels_last=True)),
    "batched": Configuration("reference, passes batched", Plain(batched=True)),
    "fused-adam": Configuration("reference, fused Adam", Plain(fused_adam=True)),
    "bf16": Configuration("reference, bf16", Plain(bf16=True)),
    "together": Configuration("all four: the package's step, preset `paper`"),
    "direct": Configuration("together, direct convolutions", settings=_DIRECT),
    "vgg-relu4_1": Configuration("together, VGG ends at relu4_1", settings=_RELU4_1),
    "half-critic": Configuration("together, discriminators of half width", settings=_HALF_CRITIC),
    "cheaper": Configuration("together, both of these", settings={**_RELU4_1, **_HALF_CRITIC}),
    "cudnn-search": Configuration("together, cuDNN tries its algorithms", cudnn_search=True),
    "stable-preset": Configuration("preset `stable`", preset="stable"),
    "cpu-preset": Configuration("preset `cpu`: 48 px", preset="cpu", batch=4),
    "cpu-direct": Configuration("`cpu`, direct convolutions", None, "cpu", _DIRECT, batch=4),
}


def configured(name: str, batch: int, settings: Mapping[str, Any]) -> CycleConfig:
    """The settings of a row, with what is given on the command line over them."""
    row = CONFIGURATIONS[name]
    own = {**row.settings, "batch": row.batch or batch}
    if row.plain:
        own["precision"] = "bf16" if row.plain.bf16 else "fp32"
    return cycle_config(row.preset, {**own, **settings})
