"""A trained model applied to scans: volume in, volume out, derived series on disk.

Series stream through: what is in memory at a time is a few slices, however many a series has.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cvsct import __version__
from cvsct.errors import CvsctError, GuardError, ModelError, SeriesError, explain
from cvsct.inference.guarding import Guard, report
from cvsct.inference.pipeline import overlap
from cvsct.io.derived import Derivation
from cvsct.io.header import is_dicom, label
from cvsct.io.nifti_header import is_nifti
from cvsct.io.nifti_write import output_name, write_nifti
from cvsct.io.series import derived_writer, is_harmonized, open_series
from cvsct.io.stack import SeriesFiles, open_stack
from cvsct.models.bundle import Bundle
from cvsct.models.mapping import VolumeMapping, sample_of
from cvsct.runs import Progress, config_hash, new_folder, silent
from cvsct.volume import CTVolume, joined

logger = logging.getLogger(__name__)

EXACT = "fp32"
"""The precision that needs no label."""


@dataclass(frozen=True)
class Outcome:
    """What became of one series: its derived series, or the reason there is none.

    Args:
        guard: what guards had to say (`guarding.report`); empty where none was at work.
        names: of a NIfTI series, what its file was called and what the derived one is.
        notes: what is odd about the series as it was read.
    """

    series_uid: str
    folder: str = ""
    derived_uid: str = ""
    n_slices: int = 0
    mean_change_hu: float = 0.0
    guard: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Only what applies."""
        if self.error:
            return {"source_series_uid": self.series_uid, "error": self.error}
        return {
            "source_series_uid": self.series_uid,
            "derived_series_uid": self.derived_uid,
            "folder": self.folder,
            **self.names,
            "n_slices": self.n_slices,
            "mean_change_hu": round(self.mean_change_hu, 3),
            **({"guard": self.guard} if self.guard else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    @property
    def n_flagged(self) -> int:
        """Slices that the guard has flagged."""
        return len(self.guard.get("slices", {}).get("flagged", ()))


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


def derivation_of(
    bundle: Bundle,
    mapping: VolumeMapping,
    reverse: bool,
    keep_equipment: bool,
    timestamp: str = "",
) -> Derivation:
    """What images made by this model say of how they were made; their UIDs follow from it."""
    precision = mapping.engine.precision if mapping.engine else EXACT
    other = {} if precision == EXACT else {"precision": precision}
    return Derivation(
        method=bundle.method if precision == EXACT else f"{bundle.method} in {precision}",
        target=str(bundle.source if reverse else bundle.target),
        model_name=bundle.method,
        model_version=__version__,
        model_sha256=bundle.sha256,
        config_sha256=config_hash(
            {"cvsct": __version__, "reverse": reverse, **other, **bundle.settings}
        ),
        keep_equipment=keep_equipment,
        timestamp=timestamp,
    )


def names_told(series: SeriesFiles) -> dict[str, str]:
    """A NIfTI file's name and its derived one's for a manifest, which may be shared.

    A name that could identify somebody is told as a hash; `uid_map.json` beside the file has it.
    """
    path = series.files[0]
    if not is_nifti(path):
        return {}
    out = output_name(series.name, path)
    return {"input": label(path), **({"file": out} if out and label(path) == path.name else {})}


def folder_name(series_uid: str) -> str:
    """The folder of a series, and its name wherever its UID must not stand."""
    return hashlib.sha256(series_uid.encode()).hexdigest()[:16]


def harmonize_series(
    series: Sequence[SeriesFiles],
    bundle: Bundle,
    mapping: VolumeMapping,
    folder: Path,
    reverse: bool = False,
    keep_equipment: bool = False,
    progress: Progress = silent,
    nifti: bool = False,
    guard: Guard | None = None,
    force: bool = False,
    timestamp: str = "",
) -> list[Outcome]:
    """Read, map and write each series; one that fails is named and the others go on.

    Slices are read, mapped and written at the same time and let go, so that memory does not grow
    with a series. Each derived series lies in a folder of its own, named by a hash of its
    source's UID. Images made in bf16 are labelled so and have other UIDs. What was read from NIfTI
    is written as NIfTI; `nifti` writes it beside derived DICOM too. Without a `guard` it is the
    model's own. What this program derived is refused unless by `force`.
    """
    guard = guard or Guard.of(bundle, reverse)
    derivation = derivation_of(bundle, mapping, reverse, keep_equipment, timestamp)
    outcomes = []
    total, done = sum(each.n_slices for each in series), 0
    for each in series:

        def tell(slices: int, before: int = done) -> None:
            progress("harmonising", before + slices, total)

        tell(0)
        try:
            place = folder / folder_name(each.series_uid)
            outcomes.append(
                harmonize_one(each, mapping, place, derivation, tell, nifti, guard, force)
            )
        except (CvsctError, OSError) as error:
            reason = explain(error) if isinstance(error, OSError) else str(error)
            logger.warning("a series was not harmonised: %s", reason)
            outcomes.append(Outcome(series_uid=each.series_uid, error=reason))
            tell(each.n_slices)
        done += each.n_slices
    return outcomes


def harmonize_one(
    series: SeriesFiles,
    mapping: VolumeMapping,
    place: Path,
    derivation: Derivation,
    tell: Callable[[int], None] = lambda slices: None,
    nifti: bool = False,
    guard: Guard | None = None,
    force: bool = False,
) -> Outcome:
    """One series, its folder whole or absent. What headers tell is refused before any pixel.

    Args:
        place: the folder to write.
        tell: told how many slices are done.
        nifti: write a derived DICOM series as NIfTI too.
        guard: what refuses a series before it is mapped, and flags slices; without it none does.
        force: harmonize even what this program derived.

    Raises:
        GuardError: if the guard refuses it.
        CvsctError: if the series must be refused or the model does not fit it.
        OSError: if it cannot be written.
    """
    stack = open_series(series)
    if not force and is_harmonized(series):
        raise SeriesError(
            f"{label(series.files[0])}: derived by cvsct already; give the original series, or "
            "--force to harmonize it once more"
        )
    guard = guard or Guard()
    watch = guard.watch()
    with _named(series):
        verdict = guard.look(stack)
    if mapping.fit is not None:
        sample = [stack.read(i, i + 1) for i in sample_of(len(stack))]
        mapping = mapping.fitted_to(joined(sample))
    at_once = mapping.slices_at_once or len(stack)
    change_hu: list[float] = []

    def change(source: CTVolume) -> tuple[CTVolume, CTVolume]:
        result = harmonize_volume(source, mapping)
        change_hu.extend(np.abs(result.hu - source.hu).mean(axis=(1, 2), dtype=float).tolist())
        return source, result

    with new_folder(place) as partial:
        writer = derived_writer(stack, partial, derivation, series)

        def write(made: tuple[CTVolume, CTVolume]) -> None:
            source, result = made
            with _named(series):  # judged in the thread that writes: computing goes on meanwhile
                remarks = watch(source, result)
            writer.write(source, result.hu, remarks)

        overlap(
            range(0, len(stack), at_once),
            lambda start: stack.read(start, start + at_once),
            change,
            write,
            lambda count: tell(min(count * at_once, len(stack))),
        )
        written = writer.finish()
        if nifti and is_dicom(written.files[0]):
            derived = open_stack(SeriesFiles(written.series_uid, written.files))
            write_nifti(derived, partial / f"{folder_name(series.series_uid)}.nii.gz")
    return Outcome(
        series_uid=series.series_uid,
        folder=place.name,
        derived_uid=written.series_uid,
        n_slices=len(stack),
        mean_change_hu=float(np.mean(change_hu)),
        guard=report(verdict, watch, mapping.remark),
        names=names_told(series),
        notes=stack.notes,
    )


@contextlib.contextmanager
def _named(series: SeriesFiles) -> Iterator[None]:
    """A guard's refusal with the name of a file."""
    try:
        yield
    except GuardError as error:
        raise GuardError(f"{label(series.files[0])}: {error}") from None
