"""A trained model applied to scans: volume in, volume out, derived DICOM series on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvsct import __version__
from cvsct.errors import CvsctError, ModelError, explain
from cvsct.io.derived import Derivation, write_derived
from cvsct.io.dicom import SeriesFiles, read_series
from cvsct.models.bundle import Bundle, VolumeMapping
from cvsct.runs import Progress, config_hash, new_folder, silent
from cvsct.volume import CTVolume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one series: its derived series, or the reason there is none."""

    series_uid: str
    folder: str = ""
    derived_uid: str = ""
    n_slices: int = 0
    mean_change_hu: float = 0.0
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Only what applies."""
        if self.error:
            return {"source_series_uid": self.series_uid, "error": self.error}
        return {
            "source_series_uid": self.series_uid,
            "derived_series_uid": self.derived_uid,
            "folder": self.folder,
            "n_slices": self.n_slices,
            "mean_change_hu": round(self.mean_change_hu, 3),
        }


def harmonize_volume(volume: CTVolume, mapping: VolumeMapping) -> CTVolume:
    """The volume as the other scanner would have made it; padding stays padding.

    Raises:
        ModelError: if the mapping gives values that are not finite.
    """
    hu = mapping(volume)
    if not np.isfinite(hu).all():
        raise ModelError(
            "the model gave values that are not finite; the model is damaged or does not fit "
            "these images, nothing was written"
        )
    if volume.padding is not None:
        hu = np.where(volume.padding, volume.hu, hu)
    return volume.with_hu(hu.astype(np.float32, copy=False))


def harmonize_series(
    series: Sequence[SeriesFiles],
    bundle: Bundle,
    mapping: VolumeMapping,
    folder: Path,
    reverse: bool = False,
    keep_equipment: bool = False,
    progress: Progress = silent,
) -> list[Outcome]:
    """Read, map and write each series; one that fails is named and the others go on.

    Each derived series lies in a folder of its own, named by a hash of its source's UID.
    """
    derivation = Derivation(
        method=bundle.method,
        target=str(bundle.source if reverse else bundle.target),
        model_name=bundle.method,
        model_version=__version__,
        model_sha256=bundle.sha256,
        config_sha256=config_hash({"cvsct": __version__, "reverse": reverse, **bundle.settings}),
        keep_equipment=keep_equipment,
    )
    outcomes = []
    for done, each in enumerate(series):
        progress("harmonising", done, len(series))
        try:
            volume = read_series(each)
            result = harmonize_volume(volume, mapping)
            place = folder / hashlib.sha256(each.series_uid.encode()).hexdigest()[:16]
            with new_folder(place) as partial:
                written = write_derived(volume, result.hu, partial, derivation)
        except (CvsctError, OSError) as error:
            reason = explain(error) if isinstance(error, OSError) else str(error)
            logger.warning("a series was not harmonised: %s", reason)
            outcomes.append(Outcome(series_uid=each.series_uid, error=reason))
            continue
        outcomes.append(
            Outcome(
                series_uid=each.series_uid,
                folder=place.name,
                derived_uid=written.series_uid,
                n_slices=len(volume.hu),
                mean_change_hu=float(np.abs(result.hu - volume.hu).mean()),
            )
        )
    progress("harmonising", len(series), len(series))
    return outcomes
