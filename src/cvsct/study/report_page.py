"""The page of a study's report, and its tables."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from cvsct import __version__
from cvsct.evaluation.groups.result import GroupEvaluation
from cvsct.evaluation.groups.signal_kept import StageAuc
from cvsct.evaluation.report import figures
from cvsct.evaluation.report.group_tables import region_tables
from cvsct.evaluation.report.groups_page import COLORS, region_figures
from cvsct.evaluation.report.page import Section
from cvsct.evaluation.report.plots import embedded
from cvsct.evaluation.report.templates import render
from cvsct.evaluation.table import Table
from cvsct.study.images import AFTER, BEFORE, quartiles
from cvsct.study.plan import PlannedGroup
from cvsct.study.report import RegionAgreement, SeriesLine, StudyReport

CITATIONS = (
    "Features: van Griethuysen JJM et al. Computational radiomics system to decode the "
    "radiographic phenotype. Cancer Res 2017;77:e104. Zwanenburg A et al. The Image Biomarker "
    "Standardization Initiative. Radiology 2020;295:328.",
    "ComBat: Johnson WE et al. Adjusting batch effects in microarray expression data using "
    "empirical Bayes methods. Biostatistics 2007;8:118.",
    "Share of variance: Olejnik S, Algina J. Generalized eta and omega squared statistics. Psychol "
    "Methods 2003;8:434. Permutations: Freedman D, Lane D. J Bus Econ Stat 1983;1:292.",
)


def report_html(report: StudyReport) -> str:
    """The page."""
    verdicts = [("", "Cohort", _cohort_text(report))]
    verdicts += [
        (
            "unclear" if judged.kind in ("at chance", "smaller") else "",
            f"Region {region}",
            f"{report.compared(region)} {judged.text}",
        )
        for region, judged in report.groups.verdicts.items()
    ]
    sections = [
        Section("cohort", "Cohort", tuple(_cohort_tables(report))),
        Section("images", "Images", tuple(_image_tables(report)), tuple(_image_figures(report))),
    ]
    for number, region in enumerate(report.regions):
        sections.append(_region_section(report, region, number))
    failed = [line for line in report.series if line.status == "failed"]
    notes = [f"{count} series failed: {reason.rstrip('.')}" for reason, count in
             Counter(_without_path(line) for line in failed).most_common()]  # fmt: skip
    notes += [f"{region.region}: no figures by outcome: {region.why_no_outcome}"
              for region in report.regions if region.why_no_outcome]  # fmt: skip
    notes += [note.rstrip(".") for note in report.groups.notes]
    return render(
        "study.html.j2",
        title="Report of a study",
        notice="It names no patient; its figures show a point for each.",
        verdicts=verdicts,
        notes=notes,
        sections=sections,
        how=(*methods_text(report), *CITATIONS),
    )


def _without_path(line: SeriesLine) -> str:
    """Why a series failed, without the file that it begins with."""
    first, _, rest = line.reason.partition(": ")
    return rest if rest and ("/" in first or "." in first) else line.reason


def report_tables(report: StudyReport) -> list[Table]:
    """All tables of the page."""
    tables = [*_cohort_tables(report), *_image_tables(report)]
    for region in report.regions:
        tables += _region_tables(report, region)
        remaining = _remaining_table(region)
        tables += [remaining] if remaining else []
    return tables


def _cohort_text(report: StudyReport) -> str:
    counts = Counter(line.status for line in report.series)
    patients = len({line.row.patient for line in report.series})
    return (
        f"{patients} patients, {len(report.series)} series in {len(report.plan.groups)} groups: "
        f"{counts['harmonized']} harmonized to {report.plan.reference}, {counts['reference']} of "
        f"the reference, {counts['failed']} failed."
    )


def _cohort_tables(report: StudyReport) -> list[Table]:
    plan = report.plan
    rows, marked = [], set()
    for number, group in enumerate(plan.groups):
        lines = [line for line in report.series if line.row.group == group.name]
        verdicts = Counter(line.guard for line in lines if line.guard)
        if group.name == plan.reference:
            marked.add(number)
        rows.append(
            (
                group.name, " / ".join(group.protocols), str(group.n_patients),
                str(group.n_series), str(sum(plan.averages(line.row) for line in lines)),
                str(sum(line.status == "failed" for line in lines)),
                ", ".join(f"{kind} {count}" for kind, count in verdicts.most_common()),
            )
        )  # fmt: skip
    left = Counter(row.why_left_out for row in plan.rows if not row.used and row.series_uid)
    groups = Table(
        "study_groups", "Groups", "Series by group; the reference is marked. Guard: verdict of the "
        "model's guard on each scan.",
        ("group", "protocols", "patients", "series", "averaged", "failed", "guard"),
        tuple(rows), frozenset(marked),
    )  # fmt: skip
    if not left:
        return [groups]
    return [
        groups,
        Table("study_left_out", "Left out", "Series that the plan leaves out; plan.csv lists each.",
              ("reason", "series"), tuple((why, str(n)) for why, n in left.most_common())),
    ]  # fmt: skip


def _image_tables(report: StudyReport) -> list[Table]:
    rows, lungs = [], []
    for images in report.images:
        cells = [images.group]
        for stage in (BEFORE, AFTER):
            found = images.to_reference.get(stage)
            if found is None:
                cells += ["", ""]
                continue
            cells += [
                _with_error(found.noise, found.noise_error),
                _with_error(found.sharpness, found.sharpness_error),
            ]
        rows.append(tuple(cells))
        lungs.append(
            (images.group, str(len(images.laa950_percent.get(BEFORE, ()))),
             *(quartiles(figure.get(stage, ())) for figure in
               (images.laa950_percent, images.perc15_hu) for stage in (BEFORE, AFTER)))
        )  # fmt: skip
    marked = frozenset(
        i for i, images in enumerate(report.images) if images.group == report.plan.reference
    )
    return [
        Table(
            "study_images", "Noise and sharpness",
            "Of the group over the reference's (1 is the reference), ± standard error: noise at .2 "
            "to .7 cycles/mm, sharpness at .25 to .5, at equal attenuation and tissue; all at the "
            "reference's slice thickness.",
            ("group", "noise before", "sharpness before", "noise after", "sharpness after"),
            tuple(rows), marked,
        ),
        Table(
            "study_lungs", "Lung density",
            "Median and quartiles over series. LAA-950: share of lung below -950 HU, in %; Perc15: "
            "15th percentile, in HU. Patients of groups may differ.",
            ("group", "series", "LAA-950 before", "after", "Perc15 before", "after"),
            tuple(lungs), marked,
        ),
    ]  # fmt: skip


def _with_error(value: float, error: float) -> str:
    if not math.isfinite(value):
        return ""
    return f"{value:.2f}" + (f" ± {error:.2f}" if error and math.isfinite(error) else "")


def _image_figures(report: StudyReport) -> list[dict[str, str]]:
    """Noise spectra of all groups, before and after."""
    drawn = [images for images in report.images if images.spectra]
    if not drawn:
        return []
    figure = figures.new_figure(9.0, 3.6)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, stage in zip(panels, (BEFORE, AFTER), strict=True):
        for number, images in enumerate(drawn):
            curve = images.spectra.get(stage)
            if curve is None:
                continue
            f, power = curve
            shown = (f >= 0.05) & np.isfinite(power)
            is_reference = images.group == report.plan.reference
            axis.plot(
                f[shown], 10 / np.log(10) * power[shown],
                color="#222222" if is_reference else COLORS[number % len(COLORS)],
                linewidth=2.2 if is_reference else 1.2,
                linestyle="-" if is_reference else ("--", "-.", ":")[number % 3],
                label=images.group,
            )  # fmt: skip
        axis.set_title(stage, fontsize=9)
        axis.set_xlabel("spatial frequency (cycles/mm)")
    panels[0].set_ylabel("noise power (dB of HU² mm²)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return [
        embedded(
            figures.svg_base64(figure),
            f"Noise spectra of {len(drawn)} groups before and after harmonization.",
            "Power in the most homogeneous soft tissue of each group; bodies differ, so levels do "
            "too. Thick: the reference.",
        )
    ]


def _region_section(report: StudyReport, region: RegionAgreement, number: int) -> Section:
    figures_of = next(own for own in report.groups.regions if own.region == region.region)
    drawn = list(region_figures(figures_of))
    if region.by_outcome is not None:
        for own in region.by_outcome.regions:
            drawn += region_figures(own)[:1]
    return Section(
        f"region{number}", f"Region: {region.region}", tuple(_region_tables(report, region)),
        tuple(drawn), _remaining_table(region),
    )  # fmt: skip


def _region_tables(report: StudyReport, region: RegionAgreement) -> list[Table]:
    own = next(each for each in report.groups.regions if each.region == region.region)
    tables = region_tables(own, report.groups.settings)
    if region.distances:
        tables.append(_distance_table(region))
    if region.paired:
        tables.append(_paired_table(region))
    if region.outcome is not None:
        tables.append(_outcome_table(region))
        by_outcome = _by_outcome_table(region, region.by_outcome, report.outcome)
        tables += [by_outcome] if by_outcome else []
    return tables


def _distance_table(region: RegionAgreement) -> Table:
    stages = list(dict.fromkeys(each.stage for each in region.distances))
    cells = {(each.group, each.stage): f"{each.median:.2f} ({each.low:.2f} to {each.high:.2f})"
             for each in region.distances}  # fmt: skip
    patients = {each.group: each.patients for each in region.distances}
    return Table(
        f"distance_{region.region}", "Distance to the reference",
        "Median over features of the absolute standardized difference to the reference, 95 % "
        "interval over patients (jackknife); it is not 0 where scanners agree, for patients "
        "differ.",
        ("group", "patients", *stages),
        tuple((group, str(n), *(cells.get((group, stage), "") for stage in stages))
              for group, n in patients.items()),
    )  # fmt: skip


def _paired_table(region: RegionAgreement) -> Table:
    rows = tuple(
        (each.groups, each.stage, str(each.bodies),
         "" if each.concordance is None else f"{each.concordance:.2f}", f"{each.difference:.2f}")
        for each in region.paired
    )  # fmt: skip
    return Table(
        f"paired_{region.region}", "Bodies scanned in several groups",
        "Lin's concordance of the two scans of a body, median over features, from three bodies "
        "on; absolute difference of the two, in deviations of the feature over patients, median. "
        "Between any two groups each body counts once. Models have not learned from these bodies "
        "where enough others were left (hold_out).",
        ("groups", "stage", "bodies", "concordance", "difference"), rows,
    )  # fmt: skip


def _outcome_table(region: RegionAgreement) -> Table:
    found = region.outcome
    assert found is not None
    within = {stage.stage: stage for stage in found.within}
    rows = tuple(
        (stage.stage, _area(stage), _change(stage), _area(within[stage.stage]),
         _change(within[stage.stage]))
        for stage in found.stages
    )  # fmt: skip
    unknown = f"; {found.unknown} whose outcome is not told are left out" if found.unknown else ""
    by_group = "; ".join(f"{name} {without}, {having}" for name, (without, having) in
                         found.by_group.items())  # fmt: skip
    return Table(
        f"outcome_{region.region}", f"Outcome: column {found.outcome}",
        f"Area under the ROC curve of a classifier of the pooled patients ({found.patients[0]} "
        f"without, {found.patients[1]} with{unknown}), tested on unseen ones; ComBat is fitted "
        "without them too. Within groups: patients are compared with those of their own group "
        "alone. 95 % interval over patients.",
        ("stage", "area", "change from source", "within groups", "change from source"), rows,
        footnotes=(
            "Where the outcome is more frequent in some groups, whatever tells groups apart "
            "foretells it, and the first area falls as groups agree. Without and with: "
            f"{by_group}.",
        ),
    )  # fmt: skip


def _area(stage: StageAuc) -> str:
    return f"{stage.auc:.2f} ({stage.low:.2f} to {stage.high:.2f})"


def _change(stage: StageAuc) -> str:
    if stage.change is None:
        return ""
    value, low, high = stage.change
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _by_outcome_table(
    region: RegionAgreement, found: GroupEvaluation | None, outcome: str
) -> Table | None:
    own = found.regions[0] if found and found.regions else None
    if own is None or not own.stages:
        return None
    rows = tuple(
        (stage.stage, f"{stage.share.omega:.1%}", f"{stage.share.chance_high:.1%}",
         f"{stage.share.p_value:.3f}")
        for stage in own.stages
        if stage.share is not None
    )  # fmt: skip
    return Table(
        f"variance_by_outcome_{region.region}", f"Share of variance by {outcome}",
        f"Mean omega squared of the outcome over features; n = {len(own.group)} rows, one a "
        "patient and group.",
        ("stage", "share", "95th percentile of chance", "p"), rows,
    )  # fmt: skip


def _remaining_table(region: RegionAgreement) -> Table | None:
    found = region.remaining
    if not found.features:
        return None
    return Table(
        f"not_harmonized_{region.region}",
        f"Features that did not harmonize: {len(found.features)} of {found.tested}",
        "Omega squared of the group, .06 or more after harmonization and in most of 200 resamples "
        "of four fifths of the patients; frequency: share of these. Where groups are exchanged "
        f"between patients, {found.by_chance:.0f} are found on average, so that "
        f"{'no more than chance gives' if len(found.features) <= found.by_chance else 'more'} "
        "were found here. No outcome was looked at.",
        ("feature", "before", "after", "frequency"),
        tuple((each.feature, f"{each.before:.2f}", f"{each.after:.2f}", f"{each.frequency:.0%}")
              for each in found.features),
    )  # fmt: skip


def methods_text(report: StudyReport) -> list[str]:
    """Methods of the study in words, to paste into a paper."""
    plan, options = report.plan, report.plan.options
    used, patients = len(plan.used), len({row.patient for row in plan.used})
    averaged = sum(plan.averages(row) for row in plan.used)
    thickness = (
        f" Slices of {averaged} series were averaged to {options.thickness_mm:g} mm before "
        "anything was fitted, by weights whose slice sensitivity has that width."
        if averaged
        else ""
    )
    reference = next(group for group in plan.groups if group.name == plan.reference)
    modeled = [group for group in plan.groups if group.name != plan.reference
               and any(line.row.group == group.name and line.status == "harmonized"
                       for line in report.series)]  # fmt: skip
    failed = sum(line.status == "failed" for line in report.series)
    compared = {name for region in report.groups.regions for name in region.groups}
    n_batches = len({line.row.group for line in report.series})
    own = options.combat
    return [
        f"Methods. {used} series of {patients} patients were put into {len(plan.groups)} groups by "
        "scanner, kernel, tube voltage, slice thickness, contrast agent and measured noise and "
        "sharpness; the groups, and what was merged, split, joined or changed by hand, are listed "
        f"in plan.csv. The reference was {_protocol(reference)} ({reference.n_patients} patients)."
        f"{thickness} For {len(modeled)} groups a model ({options.method}, cvsct {__version__}) "
        "was trained on their scans and the reference's, unpaired and without regard to any "
        "outcome"
        + (", without patients who were scanned in several groups where enough others were left"
           if options.hold_out else "")
        + ", and their scans were rewritten by it (research use only)"
        + (f"; {failed} series failed and are in no figure" if failed else "")
        + ". Features were measured before and after in the same regions, by the parameters of "
        "settings.yaml. ComBat was fitted with the group as batch to groups of at least "
        f"{own.min_patients} patients"
        + (f" and {', '.join(own.covariates)} as covariates" if own.covariates else "")
        + f", before and after harmonization. {len(compared)} of {n_batches} groups, those of at "
        f"least {report.groups.settings.min_patients} patients, were compared. Shares of variance "
        f"are partial omega squared with {report.groups.settings.permutations} permutations of "
        "patients' residuals; identification is by a linear discriminant on ranks with all scans "
        "of a patient in one fold; intervals are over patients.",
    ]  # fmt: skip


def _protocol(group: PlannedGroup) -> str:
    return " / ".join(group.protocols[:2])
