"""Application of a trained model to a volume in memory, or to a series that streams from disk.

Of a series only a few slices are in memory at a time, however many it has.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cvsct import __version__
from cvsct.core.errors import GuardError, SeriesError
from cvsct.core.files import config_hash, new_folder
from cvsct.core.sampling import read_sample
from cvsct.core.volume import CTVolume, OpenedScan
from cvsct.guard.apply import Guard, guard_report, scan_facts
from cvsct.guard.scan_verdict import ScanVerdict
from cvsct.inference.harmonize_volume import harmonize_volume
from cvsct.inference.overlap import overlap
from cvsct.inference.uncertainty import Asked, Ensemble, UncertaintyWriter
from cvsct.io.dicom.header import is_dicom, label
from cvsct.io.dicom.stack import SeriesFiles, open_stack
from cvsct.io.dicom.write import Derivation
from cvsct.io.nifti.header import is_nifti
from cvsct.io.nifti.write import output_name, write_nifti
from cvsct.io.series import derived_writer, is_harmonized, open_series
from cvsct.methods.volume_mapping import RepeatedMapping, VolumeMapping
from cvsct.model.bundle import Bundle

EXACT = "fp32"
"""Precision that derived images do not name."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one series: its derived series, or the reason why there is none.

    Args:
        series_uid: Series Instance UID of the source.
        folder: name of the derived series' folder in the output folder.
        derived_uid: Series Instance UID of the derived series; empty where there is none.
        n_slices: number of slices written.
        mean_change_hu: mean absolute change of the voxels, in HU.
        guard: findings of the guard (`cvsct.guard.apply.report`); empty without a guard.
        synthesis: shares of the noise variance that was generated, 0 to 1: `predicted_share` by
            the model, as headers tell it, and `measured_share` over the slices; empty where all
            noise comes from the source.
        uncertainty: medians over slices by tissue (`inference.uncertainty`); empty where it was not
            asked for.
        names: for NIfTI, the names of the source file and of the derived file.
        notes: remarks on the source series.
        error: why there is no derived series; empty where there is one.
    """

    series_uid: str
    folder: str = ""
    derived_uid: str = ""
    n_slices: int = 0
    mean_change_hu: float = 0.0
    guard: dict[str, Any] = field(default_factory=dict)
    synthesis: dict[str, float] = field(default_factory=dict)
    uncertainty: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain values for JSON, without those that do not apply."""
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
            **({"synthesis": self.synthesis} if self.synthesis else {}),
            **({"uncertainty": self.uncertainty} if self.uncertainty else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    @property
    def n_flagged(self) -> int:
        """Number of slices that the guard flagged."""
        return len(self.guard.get("slices", {}).get("flagged", ()))


def derivation_of(
    bundle: Bundle,
    mapping: VolumeMapping,
    reverse: bool,
    keep_equipment: bool,
    timestamp: str = "",
) -> Derivation:
    """Derivation that images of this model record; their UIDs follow from it.

    Args:
        bundle: the model.
        mapping: the mapping of one direction, with its engine.
        reverse: whether it maps from B to A.
        keep_equipment: whether derived images keep Manufacturer and model of the scanner.
        timestamp: time of making as 14 digits; empty for none.
    """
    precision = mapping.engine.precision if mapping.engine else EXACT
    precision_config = {} if precision == EXACT else {"precision": precision}
    return Derivation(
        method=bundle.method if precision == EXACT else f"{bundle.method} in {precision}",
        target=str(bundle.source if reverse else bundle.target),
        model_name=bundle.method,
        model_version=__version__,
        model_sha256=bundle.sha256,
        config_sha256=config_hash(
            {"cvsct": __version__, "reverse": reverse, **precision_config, **bundle.settings}
        ),
        keep_equipment=keep_equipment,
        timestamp=timestamp,
    )


def with_synthesis(derivation: Derivation, fitted: VolumeMapping) -> Derivation:
    """Derivation that also records how much noise a mapping that fits the scan will add."""
    share = fitted.synthesis.predicted_share if fitted.synthesis else 0.0
    return replace(derivation, synthesized_share=share)


def synthesis_report(fitted: VolumeMapping) -> dict[str, float]:
    """Entry `synthesis` of a series' manifest row; empty where no noise was added."""
    if fitted.synthesis is None or not fitted.synthesis.predicted_share:
        return {}
    return {
        "predicted_share": fitted.synthesis.predicted_share,
        "measured_share": round(fitted.synthesis.measured_share(), 4),
    }


def reportable_names(series: SeriesFiles) -> dict[str, str]:
    """Names of a NIfTI source and of its derived file, for a manifest that may be shared.

    A name that could identify a patient is replaced by a hash; `uid_map.json` beside the derived
    file has the name itself.
    """
    path = series.files[0]
    if not is_nifti(path):
        return {}
    out = output_name(series.name, path)
    return {"input": label(path), **({"file": out} if out and label(path) == path.name else {})}


def folder_name(series_uid: str) -> str:
    """Name of the folder of a series: a hash, which also names it where its UID must not appear."""
    return hashlib.sha256(series_uid.encode()).hexdigest()[:16]


def refuse_derived(series: SeriesFiles, force: bool = False) -> None:
    """Refuse a series that this program has derived.

    Args:
        series: the series to check.
        force: accept a derived series.

    Raises:
        SeriesError: if the series is derived, and `force` is not set.
    """
    if not force and is_harmonized(series):
        raise SeriesError(
            f"{label(series.files[0])}: derived by cvsct already; give the original series, or "
            "--force to harmonize it once more"
        )


def adapt_and_check(
    scan: OpenedScan,
    mapping: VolumeMapping,
    guard: Guard,
    seed: int | None = None,
    sample: CTVolume | None = None,
) -> tuple[VolumeMapping, ScanVerdict | None]:
    """Adapt a mapping to a scan and check the scan, from the same sampled slices.

    Args:
        seed: of noise that the method adds, in place of the scan's identity.
        sample: the sampled slices, where they are read already.

    Returns:
        The adapted mapping, and the guard's verdict on the scan; None where it checks no scans.

    Raises:
        GuardError: if the guard refuses the scan.
        SeriesError: if a slice cannot be read.
    """
    if mapping.fit is None and not guard.checks_scans:
        return mapping, None
    sample = read_sample(scan) if sample is None else sample
    fitted = mapping.fitted_to(sample, seed)
    return fitted, guard.check_scan(scan_facts(scan), sample, fitted.position)


def harmonize_series(
    series: SeriesFiles,
    mapping: VolumeMapping,
    folder: Path,
    derivation: Derivation,
    *,
    nifti: bool = False,
    guard: Guard | None = None,
    force: bool = False,
    uncertainty: Asked = "none",
    repeated: Sequence[RepeatedMapping] = (),
) -> Generator[int, None, Outcome]:
    """Read, map and write one series; its output folder is atomic.

    Slices are read, mapped and written at the same time and then freed, so that memory does not
    grow with the series. NIfTI is written as NIfTI. Headers are checked before any pixel is read.

    Args:
        series: the source.
        mapping: the mapping of one direction of a model.
        folder: the folder to write.
        derivation: what derived images record.
        nifti: also write a derived DICOM series as NIfTI.
        guard: checks the scan before it is mapped, and the slices after; None checks nothing.
        force: also harmonize a series that this program has derived.
        uncertainty: what to write of it beside the images: nothing, a table, or a map too.
        repeated: repeated fits of the model, which tell it.

    Yields:
        The number of slices that are newly done.

    Returns:
        The outcome of the series, at the end of the generator.

    Raises:
        GuardError: if the guard refuses it.
        CvsctError: if the series must be refused or the model does not fit it.
        OSError: if it cannot be written.
    """
    stack = open_series(series)
    refuse_derived(series, force)
    guard = guard or Guard()
    watch = guard.watch()
    sample = read_sample(stack) if uncertainty != "none" else None
    with _errors_named_after(series):
        fitted, verdict = adapt_and_check(stack, mapping, guard, sample=sample)
    writes = None
    if sample is not None:
        ensemble = Ensemble.of(mapping, fitted, repeated, sample)
        writes = UncertaintyWriter(ensemble, uncertainty == "map")
    at_once = fitted.slices_at_once or len(stack)
    change_hu: list[float] = []

    def change(source: CTVolume) -> tuple[CTVolume, CTVolume]:
        result = harmonize_volume(source, fitted)
        if writes is not None:
            writes.add(source, result)
        change_hu.extend(np.abs(result.hu - source.hu).mean(axis=(1, 2), dtype=float).tolist())
        return source, result

    with new_folder(folder) as partial:
        writer = derived_writer(stack, partial, with_synthesis(derivation, fitted), series)

        def write(slices: tuple[CTVolume, CTVolume]) -> None:
            source, result = slices
            with _errors_named_after(
                series
            ):  # judged in the thread that writes: computing goes on meanwhile
                remarks = watch(source, result)
            writer.write(source, result.hu, remarks)

        starts = range(0, len(stack), at_once)
        done = 0
        for _ in overlap(starts, lambda i: stack.read(i, i + at_once), change, write):
            yield len(change_hu) - done
            done = len(change_hu)
        written = writer.finish()
        if nifti and is_dicom(written.files[0]):
            derived = open_stack(SeriesFiles(written.series_uid, written.files))
            write_nifti(derived, partial / f"{folder_name(series.series_uid)}.nii.gz")
        told = writes.write(partial, stack.geometry) if writes is not None else {}
    return Outcome(
        series_uid=series.series_uid,
        folder=folder.name,
        derived_uid=written.series_uid,
        n_slices=len(stack),
        mean_change_hu=float(np.mean(change_hu)),
        guard=guard_report(verdict, watch, fitted.remark),
        synthesis=synthesis_report(fitted),
        uncertainty=told,
        names=reportable_names(series),
        notes=stack.notes,
    )


@contextlib.contextmanager
def _errors_named_after(series: SeriesFiles) -> Iterator[None]:
    """Add the name of the series' first file to an error of the guard."""
    try:
        yield
    except GuardError as error:
        raise GuardError(f"{label(series.files[0])}: {error}") from None
