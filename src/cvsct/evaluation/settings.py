"""Settings of an evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cvsct.core.pairing import Z_TOLERANCE_MM
from cvsct.core.volume import HUWindow
from cvsct.evaluation.features.radiomics import BIN_WIDTH_HU
from cvsct.evaluation.scorecard.tolerances import Tolerances


class EvaluationSettings(BaseModel):
    """Every setting that changes the figures of an evaluation.

    Args:
        regions: where features are measured: `squares`, seeded, of soft tissue; `slices`, all soft
            tissue of each slice; `masks`, the user's own.
        rois: number of squares.
        roi_px: side of a square in pixels.
        seed: seed of the positions of the squares and of the bootstrap.
        bin_width_hu: width of the gray-level bins of texture features.
        ibsi: measure features by IBSI's gray levels too, which doubles their time.
        window: HU range on which PSNR, SSIM and NCC are computed.
        bootstrap: number of resamples behind each interval.
        workers: largest number of processes that measure features; 0 for one per core.
        pairing: `checked` compares slices one by one unless patients or images show that the bodies
            differ; `forced` wherever positions agree; `off` never.
        z_tolerance_mm: largest distance at which two slices count as one place.
        spectrum_px: side of the patches of the texture spectra in pixels.
        examples: number of slices that the report shows.
        tolerances: tolerances of the scorecard.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: Literal["squares", "slices", "masks"] = "squares"
    rois: int = Field(default=24, ge=1)
    roi_px: int = Field(default=32, ge=8)
    seed: int = Field(default=0, ge=0)
    bin_width_hu: float = Field(default=BIN_WIDTH_HU, gt=0)
    ibsi: bool = False
    window: HUWindow = HUWindow()
    bootstrap: int = Field(default=1000, ge=1)
    workers: int = Field(default=0, ge=0)
    pairing: Literal["checked", "forced", "off"] = "checked"
    z_tolerance_mm: float = Field(default=Z_TOLERANCE_MM, gt=0)
    spectrum_px: int = Field(default=64, ge=16)
    examples: int = Field(default=2, ge=0)
    tolerances: Tolerances = Field(default_factory=Tolerances.read)
