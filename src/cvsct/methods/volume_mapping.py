"""Mapping of volumes that a method's loader makes of a model, and the engine behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from cvsct.core.sampling import read_sample
from cvsct.core.volume import CTVolume

SLICES_AT_ONCE = 8
"""Slices in one call: enough to spread its fixed cost, few enough to bound memory."""


@dataclass(frozen=True)
class Engine:
    """Engine that runs a network: library, device, precision and threads.

    Args:
        name: `openvino` or `torch`.
        version: of that library.
        device: `cpu`, or a GPU's name.
        precision: `fp32` or `bf16`.
        threads: in all; 0 on a GPU.
        streams: slices in the works at the same time.
    """

    name: str
    version: str
    device: str
    precision: str
    threads: int
    streams: int = 1

    def __str__(self) -> str:
        at_once = f", {self.streams} slices at a time" if self.streams > 1 else ""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        name = {"openvino": "OpenVINO", "torch": "PyTorch"}.get(self.name, self.name)
        return f"{name} {self.version} on {self.device}, {self.precision}{threads}{at_once}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values for a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class NoiseSynthesis:
    """Noise that a mapping adds to a scan: its share of the noise variance of the output, 0 to 1.

    Args:
        predicted_share: as the model's fit predicts it, known before any slice is mapped.
        measured_share: as it is over the slices that were mapped so far.
    """

    predicted_share: float
    measured_share: Callable[[], float]


@runtime_checkable
class Fit(Protocol):
    """Function that adapts a mapping to one scan."""

    def __call__(self, sample: CTVolume, seed: int | None = None, /) -> VolumeMapping:
        """Adapt the mapping.

        Args:
            sample: slices that represent the scan (`core.sampling`).
            seed: of random numbers, in place of the scan's identity.
        """
        ...


@dataclass(frozen=True)
class VolumeMapping:
    """Function from a volume to its harmonized HU, with how it must be called.

    Args:
        run: new HU of a volume, or of consecutive slices of one.
        slices_at_once: how many slices of a series to hand over at a time. Each must come out as
            if it were alone: a series may be larger than memory. `None` for a method that must
            see a whole volume before it can map any of it.
        engine: what runs the method's network, where it has one.
        fit: the mapping for one scan, from a sample of its slices; for a method that does not
            treat all scans alike.
        remark: what that sample told, for the manifest.
        synthesis: noise that is added; None where the method makes none.
        position: where that sample lies between the domains: 1 reads like the side that is mapped
            from, 0 like the other; None where the method does not measure it, or cannot.
    """

    run: Callable[[CTVolume], Float32[np.ndarray, "slices rows columns"]]
    slices_at_once: int | None = SLICES_AT_ONCE
    engine: Engine | None = None
    fit: Fit | None = None
    remark: str = ""
    synthesis: NoiseSynthesis | None = None
    position: float | None = None

    def fitted_to(self, sample: CTVolume, seed: int | None = None) -> VolumeMapping:
        """Adapt the mapping to a scan, given a sample of its slices (`core.sampling`).

        Args:
            seed: of noise that the method adds, in place of the scan's identity.
        """
        return self if self.fit is None else self.fit(sample, seed)

    def __call__(self, volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
        """Map a complete scan in memory."""
        if self.fit is None:
            return self.run(volume)
        return self.fitted_to(read_sample(volume)).run(volume)


@dataclass(frozen=True)
class RepeatedMapping:
    """Mapping of a model that was trained without one group of the patients of one side.

    Args:
        mapping: as the model's own.
        side: 0 for a group of the source's patients, 1 for the target's.
        share: weight of squared differences from the mean over the groups of that side, (k - 1)/k
            with k groups: their weighted sum is the variance (delete-a-group jackknife).
    """

    mapping: VolumeMapping
    side: int
    share: float
