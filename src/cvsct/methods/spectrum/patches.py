"""Patches of a domain's scans: power spectra and covariates of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int
from pydicom import Dataset
from scipy import ndimage

from cvsct.core.masks import blurred, body_of, soft_tissue_of
from cvsct.core.progress import Progress
from cvsct.core.spectra import PatchSpectra, Tissue, patch_spectra
from cvsct.core.volume import CTVolume, Scans
from cvsct.methods.sampling import measure_slices
from cvsct.methods.spectrum.expected_noise import expected_noise, patch_log_noise

RADIUS_UNIT_MM = 100.0
NO_AGENT = {"no", "none", "n", "0", "without", "w/o", "no contrast", "non contrast", "native"}
"""What scanners write as the agent where none was given."""

WITH_AGENT = ("ContrastBolusVolume", "ContrastBolusRoute", "ContrastBolusStartTime")
"""Attributes that have a value only where an agent was given."""

SMOOTH_MM = 2.0
"""Blur before roughness is measured, so that noise hardly enters."""


@dataclass(frozen=True)
class PatchKind:
    """Selection of patches by size and tissue.

    Args:
        size_mm: their side.
        tissue: `body` for all within the patient, `soft` for soft tissue.
        min_fraction: the share of a patch that must be that tissue.
    """

    size_mm: float
    tissue: Tissue
    min_fraction: float = 0.95


@dataclass(frozen=True)
class Patches:
    """Power spectra and covariates of one domain's patches of one kind.

    Args:
        log_power: natural log of power in HU² mm² at each frequency; NaN where unknown.
        log_noise: log of the noise power that attenuation leads one to expect, up to a constant.
        slice_log_noise: its mean over the body in the slice.
        log_tube_load: log of the slice's tube current times exposure time, up to a constant that
            all slices of a scanner share; NaN where the header does not say.
        contrast_agent: whether the slice's header tells of a contrast agent, 1 or 0; NaN where it
            does not say.
        roughness_hu: standard deviation on the blurred image.
        radius_sq: squared distance from the middle of the image in units of (100 mm)².
        slice_number: slices of all scans numbered through.
    """

    log_power: Float[np.ndarray, "patches n"]
    mean_hu: Float[np.ndarray, " patches"]
    log_noise: Float[np.ndarray, " patches"]
    slice_log_noise: Float[np.ndarray, " patches"]
    log_tube_load: Float[np.ndarray, " patches"]
    contrast_agent: Float[np.ndarray, " patches"]
    roughness_hu: Float[np.ndarray, " patches"]
    radius_sq: Float[np.ndarray, " patches"]
    slice_number: Int[np.ndarray, " patches"]

    def __len__(self) -> int:
        return len(self.mean_hu)

    def take(self, which: Int[np.ndarray, " some"]) -> Patches:
        """Patches at the given indices."""
        return Patches(
            **{column.name: getattr(self, column.name)[which] for column in fields(self)}
        )


def domain_patches(
    scans: Scans,
    frequencies_per_mm: Float[np.ndarray, " n"],
    kinds: Sequence[PatchKind],
    max_slices: int,
    side: str,
    progress: Progress,
    also: Callable[[CTVolume, Int[np.ndarray, " slices"]], None],
) -> list[Patches]:
    """Measure patches of each kind in slices spread evenly over the scans of a domain.

    Args:
        max_slices: slices used in all.
        side: what the domain is called in messages.
        also: called with the slices that are used of each scan, and their numbers.

    Returns:
        As many as there are kinds; one without patches where no scan shows any.
    """

    def measure(volume: CTVolume, numbers: Int[np.ndarray, " slices"]) -> list[Patches]:
        also(volume, numbers)
        return volume_patches(volume, numbers, frequencies_per_mm, kinds)

    parts = [
        part
        for part in measure_slices(scans, max_slices, measure, f"spectra of the {side}", progress)
        if part
    ]
    nothing = _no_patches(len(frequencies_per_mm))
    return [_concatenate([nothing, *(part[i] for part in parts)]) for i in range(len(kinds))]


def volume_patches(
    volume: CTVolume,
    numbers: Int[np.ndarray, " slices"],
    frequencies_per_mm: Float[np.ndarray, " n"],
    kinds: Sequence[PatchKind],
) -> list[Patches]:
    """Measure patches of each kind in a volume; none at all in slices smaller than a patch.

    Args:
        numbers: of its slices among those of all scans.
    """
    outline = blurred(volume.hu)
    masks = {"body": body_of(outline), "soft": soft_tissue_of(outline)}
    expected = expected_noise(volume, inside=masks["body"])
    smooth = blurred(volume.hu, SMOOTH_MM / volume.pixel_mm)
    kind_patches = []
    for kind in kinds:
        size_px = round(kind.size_mm / volume.pixel_mm)
        if min(volume.hu.shape[1:]) < size_px:
            return []
        spectra = patch_spectra(
            volume, frequencies_per_mm, size_px, kind.tissue, kind.min_fraction,
            mask=masks[kind.tissue],
        )  # fmt: skip
        kind_patches.append(
            Patches(
                log_power=spectra.log_power,
                mean_hu=spectra.mean_hu,
                log_noise=patch_log_noise(expected.log_power, volume, spectra),
                slice_log_noise=expected.slice_mean[spectra.corners[:, 0]],
                log_tube_load=log_tube_load(volume)[spectra.corners[:, 0]],
                contrast_agent=contrast_agent(volume)[spectra.corners[:, 0]],
                roughness_hu=_roughness_hu(smooth, spectra),
                radius_sq=_radius_sq(volume, spectra),
                slice_number=numbers[spectra.corners[:, 0]],
            )
        )
    return kind_patches


def log_tube_load(volume: CTVolume) -> Float[np.ndarray, " slices"]:
    """Log of tube current (0018,1151) times exposure time (0018,1150) of each slice.

    Up to a constant: pitch and units of makers are not told apart. NaN where a header says neither.
    """
    if len(volume.headers) != len(volume.hu):
        return np.full(len(volume.hu), np.nan)
    loads = []
    for header in volume.headers:
        values = [header.get(key) for key in ("XRayTubeCurrent", "ExposureTime")]
        loads.append(float(np.prod([float(value or 0) for value in values])))
    load = np.array(loads)
    return np.log(np.where(load > 0, load, np.nan))


def contrast_agent(volume: CTVolume) -> Float[np.ndarray, " slices"]:
    """Whether each slice's header tells of a contrast agent: 1, 0, or NaN where it does not say.

    Contrast/Bolus Agent (0018,0010) or its sequence (0018,0012), which enhanced images have, and
    what stands with it: volume, route, start time. An agent that is there and empty is unknown, and
    so is one that is missing where the patient's identity was removed (0012,0062).
    """
    if len(volume.headers) != len(volume.hu):
        return np.full(len(volume.hu), np.nan)
    return np.array([agent_given(header) for header in volume.headers])


def agent_given(header: Dataset) -> float:
    """Whether a header tells of a contrast agent: 1, 0, or NaN where it does not say."""
    agent = str(header.get("ContrastBolusAgent") or "").strip().lower()
    if header.get("ContrastBolusAgentSequence") or (agent and agent not in NO_AGENT):
        return 1.0
    if agent in NO_AGENT:
        return 0.0
    if any(header.get(name) for name in WITH_AGENT):
        return 1.0
    removed = str(header.get("PatientIdentityRemoved") or "").upper() == "YES"
    return np.nan if "ContrastBolusAgent" in header or removed else 0.0


def _roughness_hu(
    smooth: Float[np.ndarray, "slices rows columns"], spectra: PatchSpectra
) -> Float[np.ndarray, " patches"]:
    size_px = spectra.size_px
    mean, square = (
        ndimage.uniform_filter(image.astype(np.float64), (0, size_px, size_px), mode="nearest")
        for image in (smooth, np.square(smooth, dtype=np.float64))
    )
    slices, rows, columns = spectra.corners.T
    middle = slices, rows + size_px // 2, columns + size_px // 2
    roughness: Float[np.ndarray, " patches"] = np.sqrt(
        np.maximum(square[middle] - mean[middle] ** 2, 0.0)
    )
    return roughness


def _radius_sq(volume: CTVolume, spectra: PatchSpectra) -> Float[np.ndarray, " patches"]:
    offset_px = spectra.corners[:, 1:] + spectra.size_px / 2 - np.array(volume.hu.shape[1:]) / 2
    offset = offset_px * volume.geometry.pixel_mm / RADIUS_UNIT_MM
    radius_sq: Float[np.ndarray, " patches"] = np.sum(offset**2, axis=1)
    return radius_sq


def _no_patches(n: int) -> Patches:
    none = np.empty(0)
    return Patches(
        np.empty((0, n)), none, none, none, none, none, none, none, np.empty(0, dtype=np.int64)
    )


def _concatenate(parts: Sequence[Patches]) -> Patches:
    return Patches(
        **{
            column.name: np.concatenate([getattr(part, column.name) for part in parts])
            for column in fields(Patches)
        }
    )
