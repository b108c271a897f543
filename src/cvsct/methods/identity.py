"""Method `input`: unchanged images, the baseline of every comparison."""

from __future__ import annotations

import numpy as np

from cvsct.core.settings import Settings
from cvsct.core.volume import Scans
from cvsct.methods.base import TrainingRequest, make_bundle, require_scans
from cvsct.methods.settings import read_settings
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle, Domain


class InputSettings(Settings):
    """The method `input` has no settings."""


def train_input(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Record both domains in a model; nothing is learned."""
    settings = read_settings(InputSettings, request.settings)
    require_scans("source", source)
    require_scans("target", target)
    return make_bundle(Domain.of(source), Domain.of(target), request, settings, {}, {})


def load_input(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """Load the mapping that returns every image unchanged."""
    return VolumeMapping(lambda volume: volume.hu.astype(np.float32))
