"""Making of a plan: census, choice, measurement, groups and the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cvsct.core.errors import CvsctError, UsageError, need_extra
from cvsct.core.files import refuse_existing, refuse_missing, refuse_unwritable
from cvsct.core.kinds import (
    PATH,
    PATH_WORDS,
    refuse_given_no_path,
    refuse_no_path,
    refuse_other_kind,
    refuse_other_kinds_in,
)
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.slice_average import is_thickness
from cvsct.core.text import counted, did_you_mean
from cvsct.io.nifti.header import is_nifti
from cvsct.study.choice import Choice, choose_series
from cvsct.study.groups import Differences, StudyGroup, group_series
from cvsct.study.jobs import Where
from cvsct.study.measure import MeasuredProfiles, measure_all, measure_item
from cvsct.study.options import StudyOptions, check_method, make_options, read_rules
from cvsct.study.patients import read_patients
from cvsct.study.plan import EARLIER, PlanRow, StudyPlan, groups_of, is_study
from cvsct.study.plan_page import write_page
from cvsct.study.reference import cannot_reach, common_thickness, propose_reference
from cvsct.study.series import StudyCensus, StudySeries, take_census


def plan_study(
    scans: Path | str,
    out: Path | str,
    *,
    masks: Path | str | Sequence[Path | str] = (),
    mask_pattern: str = "",
    table: Path | str | None = None,
    patients: Path | str | None = None,
    reference: str = "",
    thickness_mm: float = 0.0,
    method: str = "",
    rules: Mapping[str, Any] | Path | str = MappingProxyType({}),
    workers: int = 0,
    scheduler: str = "",
    dry_run: bool = False,
    progress: Progress = silent,
    note: Note = log_note,
) -> StudyPlan:
    """Plan a study: which series of which scanners are brought to which reference.

    One series a patient and scanner is chosen; the series are measured and grouped by scanner,
    kernel, tube voltage, thickness and contrast agent, groups that agree are merged, and a group is
    proposed as the reference. `plan.csv` and `plan.toml` in `out` may be edited before `run_study`.
    Planning again keeps what was measured, and replaces both files.

    Args:
        scans: folder of the scans of all scanners, DICOM or NIfTI.
        out: folder of the study.
        masks: file or folder of masks, or several; empty for masks among the scans.
        mask_pattern: pattern of the masks' paths, as in `extract_features`.
        table: CSV file that tells the scanners of NIfTI scans: `path`, `manufacturer`, `model`,
            `kernel`, `kvp`, `thickness_mm`, `contrast`, `patient`, `site`.
        patients: CSV file with a column `patient`, and covariates and outcomes.
        reference: name of the group to bring all others to; empty for a proposal.
        thickness_mm: slice thickness to bring all series to; 0 for a proposal.
        method: method of the models; empty for that of `rules`, or `spectrum`.
        rules: further options of `plan.toml` that differ from the default, such as
            `{"choice": {"kernel": "sharp"}, "method": "band-energy"}`; or a `plan.toml` to take
            them from, of this study or another one.
        workers: number of processes; 0 for one per core.
        scheduler: address of a Dask scheduler whose workers measure the series.
        dry_run: write nothing but the measurements in `out`.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read.

    Returns:
        The `StudyPlan`: `rows`, `groups`, `reference`, `summary()`.

    Raises:
        UsageError: if a path, a rule or the reference does not exist, or `out` holds something
            else.
        CvsctError: if there are fewer than two groups, or nothing can be brought to the reference.
        StoppedError: on Ctrl-C; the same call goes on.

    Example:
        >>> plan = cvsct.plan_study(two_scanners, out, rules={"grouping": {"min_patients": 1}})
        >>> [group.n_patients for group in plan.groups]
        [1, 1]
    """
    refuse_no_path("a study reads its scans from disk", scans=scans)
    refuse_no_path(out=out)
    refuse_given_no_path(table=table, patients=patients)
    refuse_other_kind((Mapping, *PATH), "settings by name, or a TOML file", rules=rules)
    mask_paths = refuse_other_kinds_in(PATH, PATH_WORDS, masks, "masks")
    folder = Path(out)
    root = Path(scans)
    need_extra("evaluate", "study")
    refuse_missing(root, *map(Path, mask_paths), Path(table) if table else None,
                   Path(patients) if patients else None)  # fmt: skip
    if folder.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{folder}: lies inside the scans; name a folder beside them")
    if folder.is_dir() and any(folder.iterdir()) and not is_study(folder):
        refuse_existing(folder)
    refuse_unwritable(folder, grows=True)
    given = dict(rules) if isinstance(rules, Mapping) else read_rules(Path(rules))
    options = make_options({
        "scans": str(root.absolute()),
        "masks": [str(Path(mask).absolute()) for mask in mask_paths],
        "mask_pattern": mask_pattern,
        "table": str(Path(table).absolute()) if table else "",
        "patients": str(Path(patients).absolute()) if patients else "",
        "reference": reference,
        "thickness_mm": thickness_mm,
        **given,
        **({"method": method} if method else {}),
    })  # fmt: skip
    check_method(options)
    if patients:
        read_patients(Path(patients))
    plan = make_plan(folder, options, Where(workers, scheduler), note, progress)
    if not dry_run:
        for path in plan.keep_earlier():
            note(f"{path.name} of before is in {path.name}{EARLIER}")
        plan.write()
        write_page(plan)
    return plan


def make_plan(
    folder: Path, options: StudyOptions, where: Where, note: Note, progress: Progress
) -> StudyPlan:
    """Make the plan of a study.

    Args:
        folder: the study's folder, to which the profiles of series are written.
        options: rules, and the reference or thickness if they are given.

    Raises:
        UsageError: if a path or the reference given does not exist.
        CvsctError: if there is no series, or one group only.
        StoppedError: on Ctrl-C; profiles that are measured are kept.
    """
    scans = Path(options.scans)
    census = take_census(
        scans, [Path(mask) for mask in options.masks], mask_pattern=options.mask_pattern,
        table=Path(options.table) if options.table else None, note=note, progress=progress,
    )  # fmt: skip
    choices = choose_series(census.series, options.choice)
    chosen = [choice.series for choice in choices if choice.used]
    if not chosen:
        raise CvsctError(_nothing_chosen(choices))
    thickness_mm = options.thickness_mm or common_thickness(chosen, options.grouping.min_patients)
    items = [
        measure_item(
            each.files, each.acquisition, each.thickness_mm, _to(each, thickness_mm), folder
        )
        for each in chosen
    ]
    failed = measure_all(items, where, progress)
    measured = MeasuredProfiles({item.key: item.path for item in items if item.key not in failed})
    fitted_mm = {series.key: _to(series, thickness_mm) or series.thickness_mm for series in chosen}
    usable = [series for series in chosen if series.key in measured]
    differences = Differences(progress)
    groups, left_out = group_series(usable, measured, fitted_mm, options.grouping, differences)
    unmeasured = [(each, failed[each.key]) for each in chosen if each.key in failed]
    unused = [(choice.series, choice.reason) for choice in choices if not choice.used]
    _refuse_one(groups, [*left_out, *unmeasured, *unused])
    if options.reference and options.reference not in [group.name for group in groups]:
        names = [group.name for group in groups]
        raise UsageError(
            f"--reference {options.reference}: no such group; "
            f"{did_you_mean(options.reference, names)}choose one of {', '.join(names)}"
        )
    proposal = propose_reference(
        groups, thickness_mm, options.reach, differences, options.reference
    )
    if not proposal.reaches or all(reach.objection for reach in proposal.reaches):
        first = proposal.reaches[0]
        raise CvsctError(
            f"no group can be brought to {proposal.name} ({first.group}: {first.objection}); give "
            "another --reference, or wider rules of [reach]"
        )
    reference = next(group for group in groups if group.name == proposal.name)
    unreached = {reach.group: reach.objection for reach in proposal.reaches if reach.objection}
    reasons = {each.key: f"cannot be measured: {failed[each.key]}" for each in chosen
               if each.key in failed}  # fmt: skip
    reasons |= {series.key: reason for series, reason in left_out}
    reasons |= {
        series.key: f"group {group.name} cannot be brought to the reference: {objection}"
        for group in groups
        if (objection := unreached.get(group.name))
        for series in group.members
    }
    group_of = {series.key: group.name for group in groups for series in group.members}
    rows = [*_rows(choices, group_of, reasons, scans), *_file_rows(census, scans)]
    for remark in _remarks(rows, chosen, options.features.label_names):
        note(remark)
    spacing = _spacing(reference, thickness_mm) if thickness_mm else 0.0
    planned = options.model_copy(
        update={"reference": proposal.name, "thickness_mm": thickness_mm,
                "spacing_mm": options.spacing_mm or spacing}
    )  # fmt: skip
    notes = {group.name: group.notes for group in groups}
    return StudyPlan(folder, planned, tuple(rows), tuple(groups_of(rows, notes)), proposal)


def _to(series: StudySeries, thickness_mm: float) -> float:
    """Thickness that a series is averaged to; 0 where it keeps its own."""
    own = series.thickness_mm
    keeps = (
        not thickness_mm or is_thickness(own, thickness_mm) or cannot_reach(series, thickness_mm)
    )
    return 0.0 if keeps else thickness_mm


def _spacing(reference: StudyGroup, thickness_mm: float) -> float:
    """Distance between slices that is most frequent in the reference; of averaged ones their own.

    Where no series of the reference has the thickness, it is the thickness.
    """
    spacings = [
        series.spacing_mm
        for series in reference.members
        if series.spacing_mm and is_thickness(series.thickness_mm, thickness_mm)
    ]
    return max(set(spacings), key=spacings.count) if spacings else thickness_mm


def _nothing_chosen(choices: Sequence[Choice]) -> str:
    reasons = dict.fromkeys(choice.reason for choice in choices)
    return f"none of {len(choices)} series can be used: {next(iter(reasons))}"


def _refuse_one(groups: Sequence[StudyGroup], left_out: Sequence[tuple[StudySeries, str]]) -> None:
    """Refuse a study of fewer than two groups.

    Raises:
        CvsctError: saying what there is.
    """
    if len(groups) > 1:
        return
    reasons = Counter(reason for _, reason in left_out)
    others = "".join(f"; {count} left out: {why}" for why, count in reasons.most_common(3))
    if not groups:
        raise CvsctError(f"no group is large enough for a model{others}")
    raise CvsctError(
        f"all series that can be used are of one group ({groups[0].name}), so there is nothing to "
        f"harmonize{others}"
    )


def _rows(
    choices: Sequence[Choice],
    group_of: Mapping[str, str],
    reasons: Mapping[str, str],
    scans: Path,
) -> list[PlanRow]:
    """Lines of the series."""
    rows = []
    for choice in choices:
        series = choice.series
        used = choice.used and series.key not in reasons
        reason = reasons.get(series.key, choice.reason) if choice.used else choice.reason
        rows.append(
            PlanRow(
                use="yes" if used else "no",
                reason=reason,
                group=group_of.get(series.key, ""),
                patient=series.patient,
                site=series.site,
                manufacturer=series.acquisition.manufacturer,
                model=series.acquisition.model,
                kernel=series.acquisition.kernel,
                kvp=series.acquisition.kvp,
                thickness_mm=series.thickness_mm,
                spacing_mm=series.spacing_mm,
                pixel_mm=round(series.pixel_mm, 4),
                slices=series.n_slices,
                contrast=series.contrast,
                study_date=series.study_date,
                description=series.description,
                masks=tuple(relative(mask.path, scans) for mask in series.masks),
                path=series.record.path,
                series_uid=series.record.own_uid,
                files=len(series.files.files),
            )
        )
    return rows


def _file_rows(census: StudyCensus, scans: Path) -> list[PlanRow]:
    """Lines of files that are no scans, but for masks that belong to one."""
    masks = {mask.path for series in census.series for mask in series.masks}
    return [
        PlanRow(reason=reason, path=relative(file, scans))
        for file, reason in census.left_out
        if file not in masks
    ]


def relative(path: Path, root: Path) -> str:
    """A path below the scans' folder relative to it, any other in full."""
    full, base = path.absolute(), root.absolute()
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else str(full)


def _remarks(
    rows: Sequence[PlanRow], chosen: Sequence[StudySeries], label_names: Mapping[str, str]
) -> list[str]:
    """What a reader of the plan should know.

    Args:
        label_names: names of the numbers in NIfTI masks.
    """
    remarks = []
    used = [row for row in rows if row.used]
    groups: dict[str, set[str]] = {}
    for row in used:
        groups.setdefault(row.patient, set()).add(row.group)
    several = sum(len(names) > 1 for names in groups.values())
    if several:
        remarks.append(
            f"{counted(several, 'Patient ID is', 'Patient IDs are')} in more than one group; "
            "scans of one ID are kept together where patients are divided, and show how well their "
            "groups agree; if they are of different people, give each an ID of its own in the "
            "column patient of plan.csv"
        )
    pixels = [row.pixel_mm for row in used if row.pixel_mm]
    if pixels and max(pixels) > 1.5 * min(pixels):
        remarks.append(
            f"pixels of {min(pixels):g} to {max(pixels):g} mm: set resampledPixelSpacing in the "
            "radiomics settings ([features] settings)"
        )
    unnamed = [s for s in chosen if s.is_nifti and not s.acquisition.manufacturer]
    if unnamed:
        remarks.append(
            f"{counted(len(unnamed), 'NIfTI series names', 'NIfTI series name')} no scanner, and "
            "patients are taken from file names; tell both in a table (--table)"
        )
    numbered = [s for s in chosen if any(is_nifti(mask.path) for mask in s.masks)]
    named = [s for s in chosen if any(not is_nifti(mask.path) for mask in s.masks)]
    if numbered and named and not label_names:
        remarks.append(
            f"the regions of {len(numbered)} series are numbers in NIfTI masks, those of "
            f"{len(named)} series have names in DICOM masks, so they are not compared with each "
            "other; name the numbers: --label 1=NAME, or label_names in plan.toml"
        )
    unmasked = sum(not series.masks for series in chosen)
    if unmasked and unmasked < len(chosen):
        remarks.append(f"{unmasked} of {len(chosen)} series have no mask")
    return remarks
