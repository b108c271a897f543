"""The method `input`: the images as they are, the row that every other is compared with."""

from __future__ import annotations

import numpy as np

from cvsct.core.settings import Settings
from cvsct.core.volume import Scans
from cvsct.methods.base import TrainingRequest, bundle_of, need_scans
from cvsct.methods.settings import read_settings
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle


class InputSettings(Settings):
    """The method `input` has no settings."""


def train_input(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Nothing is learned; the domains are recorded."""
    settings = read_settings(InputSettings, request.settings)
    need_scans(source, target)
    return bundle_of(source, target, request, settings, {}, {})


def load_input(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """The image as it is."""
    return VolumeMapping(lambda volume: volume.hu.astype(np.float32))
