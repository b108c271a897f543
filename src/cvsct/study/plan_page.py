"""The page of a plan: who comes in, who is left out, groups, and why the reference was proposed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cvsct.core.files import write_atomic
from cvsct.core.text import counted
from cvsct.evaluation.report.page import Section
from cvsct.evaluation.report.templates import render
from cvsct.evaluation.table import Table
from cvsct.study.plan import PLAN_PAGE, PlanRow, StudyPlan

HOW = (
    "One series a patient and scanner, by the rules of plan.toml ([choice]); the first rule in "
    "which two series differ decides. Series of one manufacturer, model, kernel, tube voltage, "
    "thickness and contrast phase are a group; groups of one manufacturer and kernel are merged "
    "where noise (.2 to .7 cycles/mm) and sharpness (.25 to .5 cycles/mm), at equal attenuation "
    "and tissue, agree within the tolerances of [grouping], and a group is split where its series "
    "have two levels of noise. Noise and sharpness are measured after slices are averaged to the "
    "reference's thickness.",
    "The reference is the group to which most patients can be brought within the limits of "
    "[reach]; among equals the one with most patients. Slices are averaged to greater thickness, "
    "never the reverse.",
    "plan.csv lists every series and file with its reason. Change use and group there, and options "
    "in plan.toml; then run cvsct study run.",
)


def write_page(plan: StudyPlan) -> Path:
    """Write `plan.html`, which names no patient.

    Raises:
        MissingExtraError: if the extra `evaluate` is not installed.
    """
    path = plan.folder / PLAN_PAGE
    write_atomic(path, plan_html(plan))
    return path


def plan_html(plan: StudyPlan) -> str:
    """The page of a plan."""
    patients = len({row.patient for row in plan.used})
    reasons = plan.proposal.reasons if plan.proposal else ()
    return render(
        "study.html.j2",
        title="Plan of a study",
        notice="It names no patient; plan.csv does.",
        verdicts=[
            ("", f"{counted(patients, 'patient')} in {counted(len(plan.groups), 'group')}",
             f"{len(plan.used)} series are used, {len(plan.rows) - len(plan.used)} series and "
             "files left out."),
            ("", f"Reference: {plan.reference}", _sentence(reasons)),
        ],
        notes=[note for group in plan.groups for note in _group_notes(group.name, group.notes)],
        sections=[
            Section(table.key, table.title, (replace(table, title=""),))
            for table in (_groups(plan), _sites(plan), _left_out(plan.rows))
            if table.rows
        ],
        how=HOW,
    )  # fmt: skip


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _group_notes(name: str, notes: tuple[str, ...]) -> list[str]:
    return [f"{name}: {note}" for note in notes]


def _groups(plan: StudyPlan) -> Table:
    reaches = {reach.group: reach for reach in plan.proposal.reaches} if plan.proposal else {}
    rows, marked = [], set()
    for number, group in enumerate(plan.groups):
        members = plan.members(group.name)
        reach = reaches.get(group.name)
        if group.name == plan.reference:
            marked.add(number)
        rows.append(
            (
                group.name, " / ".join(group.protocols), str(group.n_patients),
                str(group.n_series), str(group.n_slices),
                str(sum(bool(row.masks) for row in members)),
                str(sum(plan.averages(row) for row in members)),
                _ratio(reach.noise) if reach else "reference" if number in marked else "",
                _ratio(reach.sharpness) if reach else "",
            )
        )  # fmt: skip
    return Table(
        "groups", "Groups", f"n = {len(plan.used)} series. Noise and sharpness: of the "
        "group over the reference's, as in the report; the reference is marked.",
        ("group", "protocols", "patients", "series", "slices", "with masks", "averaged",
         "noise", "sharpness"),
        tuple(rows), frozenset(marked),
    )  # fmt: skip


def _ratio(change: float) -> str:
    """A group's figure over the reference's, of the change that it needs."""
    return f"{1 / change:.2f}" if math.isfinite(change) and change > 0 else ""


def _sites(plan: StudyPlan) -> Table:
    names = [group.name for group in plan.groups]
    sites = sorted({row.site for row in plan.used})
    rows = [
        (site or "unknown", *(
            str(len({row.patient for row in plan.members(name) if row.site == site}) or "")
            for name in names
        ))
        for site in sites
    ]  # fmt: skip
    return Table("sites", "Patients by site and group", "Distinct patients.", ("site", *names),
                 tuple(rows))  # fmt: skip


def _left_out(rows: tuple[PlanRow, ...]) -> Table:
    counts: dict[str, Counter[str]] = {"series": Counter(), "files": Counter()}
    for row in rows:
        if not row.used:
            counts["series" if row.series_uid else "files"][row.why_left_out] += 1
    listed = [
        (reason, what, str(count))
        for what, of_kind in counts.items()
        for reason, count in of_kind.most_common()
    ]
    return Table("left-out", "Series and files that are left out", "plan.csv lists each.",
                 ("reason", "", "number"), tuple(listed))  # fmt: skip
