"""Split of slices for validation: whole patients, or the upper part of a single one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cvsct.core.errors import TrainingError
from cvsct.core.volume import UNNAMED
from cvsct.training.data.store import Store

GAP_MM = 10.0
"""In one patient, no slice that is learned from lies closer to one that is held out."""


@dataclass(frozen=True)
class SliceSplit:
    """Numbers of the slices to learn from and of those held out, and how they were chosen."""

    training: Int[np.ndarray, " n"]
    validation: Int[np.ndarray, " m"]
    how: str


def split_slices(
    store: Store,
    fraction: float,
    rng: np.random.Generator,
    slices: Int[np.ndarray, " among"] | None = None,
) -> SliceSplit:
    """Hold out patients until their slices are `fraction` of all, at least one patient.

    Which patients depends on the random stream and on who they are, not on their place in the
    list: a patient who was on both scanners falls on one side in both domains, most of the time,
    when both are given equal streams. Where it is not known who is shown, series of one frame of
    reference are one patient's. The only patient of a domain is parted by z, frame by frame.

    Args:
        slices: numbers of those to part; all where not given.

    Raises:
        TrainingError: if either part would be without patches.
    """
    among = np.arange(len(store)) if slices is None else slices
    frames = store.frames[[store.first(i) for i in range(len(store.facts))]].tolist()
    patients = np.array(
        [scan.patient or f"frame {frame}" for scan, frame in zip(store.facts, frames, strict=True)],
        dtype=object,
    )[store.series[among]]
    useful = list(dict.fromkeys(patients[store.counts[among] > 0]))
    if len(useful) > 1:
        salt = int(rng.integers(2**62))
        chosen = _choose(patients, sorted(useful, key=lambda who: _mixed(salt, who)), fraction)
        held_out = np.isin(patients.astype(str), chosen)
        learned = ~held_out
        how = f"{len(chosen)} of {len(useful)} patients"
    else:
        held_out, learned = _by_z(store.frames[among], store.z_mm[among], fraction)
        how = f"the upper part of the only patient, {GAP_MM:g} mm away from the rest"
    training, validation = among[learned], among[held_out]
    if not (store.counts[training].any() and store.counts[validation].any()):
        raise TrainingError(
            f"{len(among)} slices of one patient are too few to hold some out for validation; "
            "give more, or hold out none"
        )
    return SliceSplit(training, validation, f"{how}, {len(validation)} of {len(among)} slices")


def _choose(patients: np.ndarray, order: list[str], fraction: float) -> list[str]:
    """First patients whose slices fit the fraction; where none fits, the one of fewest slices."""
    slices = {who: int((patients == who).sum()) for who in order}
    room = fraction * len(patients)
    chosen = []
    for who in order[:-1]:
        if slices[who] <= room:
            chosen.append(who)
            room -= slices[who]
    return chosen or [min(order, key=lambda who: slices[who])]


def _by_z(
    frames: Int[np.ndarray, " among"], z_mm: Float[np.ndarray, " among"], fraction: float
) -> tuple[Bool[np.ndarray, " among"], Bool[np.ndarray, " among"]]:
    held_out = np.zeros(len(frames), dtype=bool)
    learned = np.zeros(len(frames), dtype=bool)
    for frame in np.unique(frames):
        inside = frames == frame
        heights_mm = np.sort(z_mm[inside])
        lowest_mm = heights_mm[-max(1, round(fraction * len(heights_mm)))]
        held_out |= inside & (z_mm >= lowest_mm)
        learned |= inside & (z_mm <= lowest_mm - GAP_MM)
    return held_out, learned


def _mixed(salt: int, who: str) -> bytes:
    return hashlib.sha256(f"{salt}/{who.removeprefix(UNNAMED)}".encode()).digest()
