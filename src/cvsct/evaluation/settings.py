"""What shapes an evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cvsct.evaluation.radiomics import BIN_WIDTH_HU
from cvsct.pairing import Z_TOLERANCE_MM
from cvsct.volume import HUWindow


class EvaluationSettings(BaseModel):
    """Everything that shapes an evaluation's figures.

    Args:
        regions: where features are measured: `squares`, seeded, of soft tissue; `slices`, all soft
            tissue of each slice; `masks`, the user's own.
        rois: how many squares.
        roi_px: their side.
        seed: places the regions and draws the bootstrap.
        bootstrap: resamples behind each interval.
        workers: processes that measure features, at most; 0 is one a core.
        pairing: `checked`, where patients and images do not speak against it; `forced`, by position
            alone; `off`.
        z_tolerance_mm: how far apart slices may lie and still be the same.
        spectrum_px: side of the patches of the power spectra.
        examples: slices shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: Literal["squares", "slices", "masks"] = "squares"
    rois: int = Field(default=24, ge=1)
    roi_px: int = Field(default=32, ge=8)
    seed: int = Field(default=0, ge=0)
    bin_width_hu: float = Field(default=BIN_WIDTH_HU, gt=0)
    window: HUWindow = HUWindow()
    bootstrap: int = Field(default=1000, ge=1)
    workers: int = Field(default=0, ge=0)
    pairing: Literal["checked", "forced", "off"] = "checked"
    z_tolerance_mm: float = Field(default=Z_TOLERANCE_MM, gt=0)
    spectrum_px: int = Field(default=64, ge=16)
    examples: int = Field(default=2, ge=0)
