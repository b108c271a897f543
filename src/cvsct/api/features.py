"""Radiomic features of every patient as one table, before and after harmonization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from cvsct.api.model import HarmonizedVolume
from cvsct.core.errors import UsageError, need_extra
from cvsct.core.files import refuse_missing, refuse_unwritable
from cvsct.core.kinds import (
    PATH,
    PATH_WORDS,
    refuse_given_no_path,
    refuse_other_kind,
    refuse_other_kinds_in,
    texts,
)
from cvsct.core.manifest import Manifest
from cvsct.core.platform import cores
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.settings import refuse_outside
from cvsct.core.volume import CTVolume
from cvsct.evaluation.features.cache import FeatureCache
from cvsct.evaluation.features.extract_group import GroupExtractor
from cvsct.evaluation.features.ibsi import Binning
from cvsct.evaluation.features.identity import (
    SITES,
    label_scans,
    pseudonym_salt,
    shared_ids,
    without_repeats,
)
from cvsct.evaluation.features.parameters import parameters_for
from cvsct.evaluation.features.patient_table import FeatureTable
from cvsct.evaluation.features.run import FeatureRun, items_of, run_extraction, write_outputs
from cvsct.io.catalog import catalog
from cvsct.io.left_out import lines
from cvsct.io.mask_files import find_mask_files, match_masks
from cvsct.io.scan_record import (
    ScanRecord,
    group_by_source,
    record_of,
    record_of_volume,
)

__all__ = ["FeatureTable", "check_features", "extract_features"]

Scan = Path | str | CTVolume | HarmonizedVolume
"""A path with any number of scans, or one volume in memory."""

SCAN = (*PATH, CTVolume, HarmonizedVolume)
SCAN_WORDS = (
    "a path, a CTVolume or HarmonizedVolume, or a list of them; read a series of find_series with "
    "cvsct.read_series"
)

LEAST = {"rois": 0, "roi_px": 8, "seed": 0, "workers": 0}
"""Least value of each number that is an option."""


def extract_features(
    scans: Scan | Sequence[Scan],
    masks: Path | str | Sequence[Path | str] = (),
    *,
    settings: Path | str | None = None,
    binning: Binning | None = None,
    dimensions: int = 3,
    structures: Sequence[str] = (),
    label_names: Mapping[str, str] | None = None,
    mask_pattern: str = "",
    rois: int = 4,
    roi_px: int = 32,
    seed: int = 0,
    site: str = "auto",
    separate_sites: bool = False,
    pseudonyms: Path | str | None = None,
    workers: int = 0,
    cache: bool = True,
    out: Path | str | None = None,
    progress: Progress = silent,
    note: Note = log_note,
) -> FeatureTable:
    """Measure radiomic features in regions of any number of scans, as one table.

    There is a row for each patient, study, series, region and stage. The stage is `source`, or
    `harmonized` for a series that `cvsct harmonize` wrote; such a series has the regions of its
    source. `docs/reference/features.md` lists the columns. A scan or a region that fails has
    a row with the reason in the column `error`.

    Args:
        scans: paths with DICOM or NIfTI scans, volumes in memory, results of `Model.harmonize`.
        masks: files or folders with masks (NIfTI, DICOM SEG, RTSTRUCT). DICOM masks are matched by
            the series or frame of reference that they name, NIfTI by their names or grids. Without
            masks, features are measured in blocks of soft tissue and in the lungs.
        settings: a PyRadiomics parameter file (YAML); None for the default one.
        binning: `ibsi` for IBSI's fixed bin size or `pyradiomics`; None is `pyradiomics` with a
            parameter file and `ibsi` without one.
        dimensions: 3 for whole regions, 2 for the slice in which a region is largest.
        structures: names or patterns (`GTV*`) of the masks' labels to use; empty for all.
        label_names: names of the numbers in NIfTI masks, such as `{"1": "lesion"}`.
        mask_pattern: pattern of the masks' paths with `{patient}`, `{study}`, `{series}`,
            `{folder}`, `{name}` or `{site}` in it, such as `{patient}_*.nii.gz`.
        rois: number of blocks of soft tissue per scan, without masks.
        roi_px: side of a block in pixels.
        seed: seed of the random positions of the blocks.
        site: what labels the site: Institution Name (`institution`), the first folder under the
            scans' path (`folder`), or the folder where there is no name (`auto`).
        separate_sites: take the same Patient ID at two sites for two patients.
        pseudonyms: file with the salt of pseudonyms that replace the Patient IDs; it is made where
            it does not exist. None keeps the IDs.
        workers: number of processes; 0 for one per core.
        cache: keep features in the user's cache folder and reuse them.
        out: folder for the tables, the parameter file, `series.csv` and `manifest.json`; a killed
            run goes on there. None writes nothing.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read.

    Returns:
        The `FeatureTable`: `rows`, `features`, `failed`, `to_pandas()`, `write(folder)`.

    Raises:
        UsageError: if arguments do not go together, a path does not exist, the parameter file is
            not valid (its line is named), or `out` holds something else or cannot be written.
        MissingExtraError: if the extra `evaluate` is not installed.
        SeriesError: if there is no CT series under a path.
        StoppedError: on Ctrl-C; scans that are finished are kept in `out`.

    Example:
        >>> table = cvsct.extract_features(scans_of_a, rois=1, binning="pyradiomics", workers=1)
        >>> table.rows[0]["region"], table.rows[0]["stage"]
        ('soft_tissue_1', 'source')
    """
    listed = refuse_other_kinds_in(SCAN, SCAN_WORDS, scans, "scans")
    refuse_given_no_path(settings=settings, pseudonyms=pseudonyms, out=out)
    refuse_other_kind((Mapping, NoneType), "names by numbers", label_names=label_names)
    listed_masks = refuse_other_kinds_in(PATH, PATH_WORDS, masks, "masks")
    given = {
        "settings": settings, "binning": binning, "dimensions": dimensions,
        "structures": texts(structures), "label_names": dict(label_names or {}),
        "mask_pattern": mask_pattern, "rois": rois, "roi_px": roi_px, "seed": seed, "site": site,
        "separate_sites": separate_sites, "pseudonyms": pseudonyms, "workers": workers,
        "cache": cache,
    }  # fmt: skip
    folder = Path(out) if out is not None else None
    if folder is not None:
        refuse_unwritable(folder, grows=True)
    run = _plan(listed, listed_masks, given, note, progress)
    manifest = Manifest("features", run.record)
    with (
        manifest.timed("measuring"),
        run_extraction(run, folder, progress, note) as (table, seconds),
    ):
        if folder is not None:
            write_outputs(run, table, seconds, folder, manifest)
    return table


def check_features(
    scans: Sequence[Path], masks: Sequence[Path], note: Note = log_note, **options: Any
) -> dict[str, Any]:
    """Check the arguments of an extraction from headers alone; nothing is measured or written.

    Args:
        options: as in `extract_features`.

    Returns:
        Numbers of scans by stage, of those with and without masks, and the hash of the settings.

    Raises:
        UsageError, MissingExtraError, SeriesError: as `extract_features`.
    """
    run = _plan(list(scans), list(masks), options, note, dry_run=True)
    return run.summary()


def _plan(
    scans: Sequence[Scan],
    masks: Sequence[Path | str],
    options: Mapping[str, Any],
    note: Note,
    progress: Progress = silent,
    dry_run: bool = False,
) -> FeatureRun:
    """Everything that a run needs, from headers: parameters, scans, masks and cells of rows."""
    need_extra("evaluate", "features")
    paths = [Path(scan) for scan in scans if isinstance(scan, PATH)]
    mask_paths = [Path(mask) for mask in masks]
    settings = options.get("settings")
    refuse_missing(*paths, *mask_paths, Path(settings) if settings else None)
    if not scans:
        raise UsageError("no scans given; name a file or folder of CT scans")
    for name, least in LEAST.items():
        refuse_outside(least, **{name: options.get(name, least)})
    structures = tuple(options.get("structures") or ())
    for name in ("structures", "mask_pattern", "label_names"):
        if options.get(name) and not masks:
            raise UsageError(f"--{name.replace('_', '-')} chooses among masks; give --masks too")
    site = options.get("site", "auto")
    if site not in SITES:
        raise UsageError(f"no site label {site!r}; choose one of {', '.join(SITES)}")
    parameters = parameters_for(
        Path(settings) if settings else None, options.get("binning"), options.get("dimensions", 3)
    )
    groups = group_by_source(without_repeats(_records(scans, note, progress), note))
    salt_file = options.get("pseudonyms")
    labels = label_scans(
        groups, site, bool(options.get("separate_sites")),
        pseudonym_salt(Path(salt_file), dry_run=dry_run) if salt_file else None,
        parameters.sha256,
    )  # fmt: skip
    for remark in shared_ids(groups, labels):
        note(remark)
    matched = None
    if masks:
        sites = {
            group.first.own_uid: cells[0]["site"]
            for group, cells in zip(groups, labels, strict=True)
        }
        matched = match_masks(
            find_mask_files(mask_paths, note), groups, sites, options.get("mask_pattern", ""), note
        )
    workers = options.get("workers", 0) or cores()
    extractor = GroupExtractor(
        parameters,
        structures,
        options.get("label_names") or {},
        options.get("rois", 4),
        options.get("roi_px", 32),
        options.get("seed", 0),
        FeatureCache() if options.get("cache", True) else None,
        alone=workers == 1,
    )
    further = {"mask_pattern": options.get("mask_pattern", ""), "site": site,
               "separate_sites": bool(options.get("separate_sites")),
               "pseudonyms": bool(salt_file), "masks": bool(masks)}  # fmt: skip
    items = items_of(groups, labels, matched, extractor, workers)
    return FeatureRun(extractor, tuple(items), workers, further)


def _records(scans: Sequence[Scan], note: Note, progress: Progress) -> list[ScanRecord]:
    records: list[ScanRecord] = []
    for number, scan in enumerate(scans, start=1):
        progress("headers", number - 1, len(scans))
        if isinstance(scan, HarmonizedVolume):
            records.append(record_of_volume(scan.volume, _number_of(scan.source, scans) or number))
        elif isinstance(scan, CTVolume):
            if scan.harmonization and not scan.series_uid:
                raise UsageError(
                    f"scan {number}: a harmonized volume whose source has no series UID; give the "
                    "result of Model.harmonize itself, not its `volume`"
                )
            records.append(record_of_volume(scan, number))
        else:
            root = Path(scan)
            contents = catalog(root)
            for line in (*contents.notes, *lines(contents.left_out)):
                note(line)
            records += [record_of(series, root) for series in contents.series]
    progress("headers", len(scans), len(scans))
    return records


def _number_of(source: CTVolume, scans: Sequence[Scan]) -> int:
    """Number of a volume among the scans, from 1; 0 where it is not there."""
    return next((number for number, scan in enumerate(scans, start=1) if scan is source), 0)
