"""Plan of a study: its series, groups, reference and options, in two files that can be edited."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from cvsct.core.errors import UsageError, one_line
from cvsct.core.files import write_atomic
from cvsct.core.kinds import refuse_no_path
from cvsct.core.names import portable_name
from cvsct.core.slice_average import is_thickness
from cvsct.core.text import columns, counted, did_you_mean
from cvsct.core.volume import Acquisition
from cvsct.guard.input_check import vendor
from cvsct.io.nifti.header import is_nifti
from cvsct.study.choice import CHOSEN
from cvsct.study.options import StudyOptions, check_method, read_toml, write_toml
from cvsct.study.reference import Proposal

PLAN_TABLE, PLAN_OPTIONS, PLAN_PAGE = "plan.csv", "plan.toml", "plan.html"
EARLIER = ".earlier"
"""Suffix of a file of an earlier plan that another one has replaced."""

SEPARATOR = ";"
"""Between several masks in a cell."""

USES = {"yes": ("yes", "y", "true", "1"), "no": ("no", "n", "false", "0")}
"""What a cell of `use` may say; spreadsheets write some of these of their own accord."""

NUMBERS = ("kvp", "thickness_mm", "spacing_mm", "pixel_mm", "slices", "files")


@dataclass(frozen=True)
class PlanRow:
    """Line of `plan.csv`: a series, or a file that is no scan.

    Args:
        use: `yes` or `no`.
        reason: why.
        group: name of its group; empty if it is not used.
        patient, site: Patient ID and site.
        manufacturer, model, kernel, kvp: of the acquisition.
        thickness_mm, spacing_mm, pixel_mm, slices, contrast: as acquired.
        study_date, description: from the header.
        masks: mask files, relative to the scans' folder where they lie in it.
        path: of the series' folder or file, relative to the scans' folder.
        series_uid: Series Instance UID; empty for a file that is no scan.
        files: number of files.
    """

    use: str = "no"
    reason: str = ""
    group: str = ""
    patient: str = field(default="", repr=False)
    site: str = ""
    manufacturer: str = ""
    model: str = ""
    kernel: str = ""
    kvp: float = 0.0
    thickness_mm: float = 0.0
    spacing_mm: float = 0.0
    pixel_mm: float = 0.0
    slices: int = 0
    contrast: str = ""
    study_date: str = field(default="", repr=False)
    description: str = field(default="", repr=False)
    masks: tuple[str, ...] = field(default=(), repr=False)
    path: str = field(default="", repr=False)
    series_uid: str = ""
    files: int = 1

    @property
    def used(self) -> bool:
        """Whether the series is in the study."""
        return self.use == "yes"

    @property
    def why_left_out(self) -> str:
        """Why it is not in the study, without what names a file, a series or a patient."""
        by_hand = self.reason.startswith(CHOSEN)  # whatever the plan said, it is not used
        return "left out by hand in plan.csv" if by_hand else short_reason(self.reason)

    @property
    def acquisition(self) -> Acquisition:
        """Scanner, kernel and tube voltage."""
        return Acquisition(self.manufacturer, self.model, self.kernel, self.kvp)


COLUMNS = tuple(each.name for each in fields(PlanRow))


@dataclass(frozen=True)
class PlannedGroup:
    """Group of a plan, for its readers.

    Args:
        name: its name.
        protocols: scanner, kernel, tube voltage and thickness of its series.
        n_patients, n_series, n_slices: distinct patients, series and slices.
        notes: what was merged, split or joined.
    """

    name: str
    protocols: tuple[str, ...]
    n_patients: int
    n_series: int
    n_slices: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyPlan:
    """Plan of a study.

    Args:
        folder: the study's folder.
        options: all options.
        rows: every series and file.
        groups: the groups of the series that are used; of a plan that was read from files without
            notes.
        proposal: why the reference was chosen; None for a plan that was read from files.
    """

    folder: Path
    options: StudyOptions
    rows: tuple[PlanRow, ...]
    groups: tuple[PlannedGroup, ...]
    proposal: Proposal | None = None

    @property
    def used(self) -> tuple[PlanRow, ...]:
        """Series of the study."""
        return tuple(row for row in self.rows if row.used)

    @property
    def reference(self) -> str:
        """Name of the reference's group."""
        return self.options.reference

    @property
    def scans(self) -> Path:
        """Folder of the scans."""
        return Path(self.options.scans)

    def members(self, group: str) -> tuple[PlanRow, ...]:
        """Series of a group."""
        return tuple(row for row in self.used if row.group == group)

    def averages(self, row: PlanRow) -> bool:
        """Whether slices of a series are averaged to the reference's thickness."""
        own, wanted = row.thickness_mm, self.options.thickness_mm
        return bool(own and wanted) and not is_thickness(own, wanted)

    def keep_earlier(self) -> list[Path]:
        """Keep files of an earlier plan that this one would replace by other content.

        Returns:
            The files; what they held is beside them, under their names with `EARLIER`.
        """
        kept = []
        for name, content in self._files().items():
            path = self.folder / name
            if path.exists() and path.read_text(encoding="utf-8-sig") != content:
                path.replace(path.with_name(f"{name}{EARLIER}"))
                kept.append(path)
        return kept

    def _files(self) -> dict[str, str]:
        about = {group.name: _about(group) for group in self.groups}
        return {PLAN_TABLE: _csv(self.rows), PLAN_OPTIONS: write_toml(self.options, about)}

    def write(self) -> None:
        """Write `plan.csv` and `plan.toml`; the table holds patients' identifiers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files().items():
            write_atomic(self.folder / name, content, private=True)

    def summary(self) -> str:
        """Groups, reference and what was left out, for a terminal."""
        reaches = {} if self.proposal is None else {r.group: r for r in self.proposal.reaches}
        table = [("group", "patients", "series", "slices", "protocols", "to the reference")]
        for group in self.groups:
            reach = reaches.get(group.name)
            if group.name == self.reference:
                to_reference = "the reference"
            elif reach is None:
                to_reference = ""
            else:
                to_reference = reach.objection or (
                    f"noise {reach.noise:.2f}, sharpness {reach.sharpness:.2f} times"
                )
            table.append(
                (group.name, str(group.n_patients), str(group.n_series), str(group.n_slices),
                 " / ".join(group.protocols[:2]), to_reference)
            )  # fmt: skip
        reasons = self.proposal.reasons if self.proposal else ()
        left = Counter(row.why_left_out for row in self.rows if not row.used)
        lines = [columns(table), f"reference: {self.reference}", *(f"  {r}" for r in reasons)]
        lines += [f"left out: {count} x {reason}" for reason, count in left.most_common()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The plan in figures, without patients."""
        return {
            "study": str(self.folder),
            "reference": self.reference,
            "reasons": list(self.proposal.reasons) if self.proposal else [],
            "thickness_mm": self.options.thickness_mm,
            "n_series": len(self.used),
            "n_patients": len({row.patient for row in self.used}),
            "n_left_out": len(self.rows) - len(self.used),
            "groups": [
                {"name": group.name, "patients": group.n_patients, "series": group.n_series,
                 "slices": group.n_slices, "protocols": list(group.protocols),
                 "notes": list(group.notes)}
                for group in self.groups
            ],
        }  # fmt: skip


def _about(group: PlannedGroup) -> str:
    return one_line(f"{counted(group.n_patients, 'patient')}, {' / '.join(group.protocols[:3])}")


def short_reason(reason: str) -> str:
    """A reason without what names a file, a series or a patient: for a page or a terminal."""
    text = reason.split(" (", maxsplit=1)[0]
    return text.split(": ", maxsplit=1)[0] if text.startswith("cannot") else text


def groups_of(rows: Sequence[PlanRow], notes: Mapping[str, Sequence[str]]) -> list[PlannedGroup]:
    """The groups of rows that are used, the largest first."""
    names = dict.fromkeys(row.group for row in rows if row.used)
    groups = []
    for name in names:
        members = [row for row in rows if row.used and row.group == name]
        protocols = Counter(_protocol(row) for row in members)
        groups.append(
            PlannedGroup(
                name, tuple(text for text, _ in protocols.most_common()),
                len({row.patient for row in members}), len(members),
                sum(row.slices for row in members), tuple(notes.get(name, ())),
            )
        )  # fmt: skip
    return sorted(groups, key=lambda group: (-group.n_patients, group.name))


def _protocol(row: PlanRow) -> str:
    thickness = f", {row.thickness_mm:g} mm" if row.thickness_mm else ""
    return f"{row.acquisition}{thickness}{', contrast agent' if row.contrast == 'yes' else ''}"


def _csv(rows: Sequence[PlanRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = []
        for name in COLUMNS:
            value = getattr(row, name)
            if isinstance(value, tuple):
                value = SEPARATOR.join(value)
            cells.append(f"{value:g}" if isinstance(value, float) else one_line(str(value)))
        writer.writerow(cells)
    return text.getvalue()


def folder_of(study: object) -> Path:
    """Folder of a study that is given by it, or by its plan.

    Raises:
        UsageError: if it is given by anything else.
    """
    if isinstance(study, StudyPlan):
        return study.folder
    refuse_no_path("or the StudyPlan of plan_study", study=study)
    return Path(str(study))


def read_plan(folder: Path) -> StudyPlan:
    """Read a plan, which may have been edited.

    Raises:
        UsageError: if a file is missing or makes no sense, naming the line.
    """
    options = read_toml(folder / PLAN_OPTIONS)
    rows = _read_table(folder / PLAN_TABLE, "mixed-scanners" in options.allow)
    check_method(options)
    groups = groups_of(rows, {})
    names = [group.name for group in groups]
    if not names:
        raise UsageError(f"{folder / PLAN_TABLE}: no series is used; set use to yes for some")
    if options.reference not in names:
        raise UsageError(
            f"{folder / PLAN_OPTIONS}: reference {options.reference!r} is no group of plan.csv; "
            f"{did_you_mean(options.reference, names)}choose one of {', '.join(names)}"
        )
    return StudyPlan(folder, options, tuple(rows), tuple(groups))


def _read_table(path: Path, mixed: bool) -> list[PlanRow]:
    """Rows of the table.

    Args:
        mixed: whether a group may have scans of several manufacturers.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            found = list(reader.fieldnames or ())
            lines = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; make a plan with `cvsct study plan`") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as CSV ({error})") from None
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise UsageError(
            f"{path}: no column {missing[0]!r}; keep the columns of the plan"
            " (was it saved with another separator than the comma?)"
        )
    rows, seen = [], dict[str, int]()
    first_of = dict[str, PlanRow]()
    for line, cells in lines:
        row = _row(cells, f"{path}, line {line}")
        if row.used:
            if row.series_uid in seen:
                raise UsageError(
                    f"{path}, line {line}: the series of line {seen[row.series_uid]} again; "
                    "remove one"
                )
            seen[row.series_uid] = line
            first = first_of.setdefault(row.group, row)
            where = f"{path}, line {line}: group {row.group!r}"
            if is_nifti(Path(row.path)) != is_nifti(Path(first.path)):
                raise UsageError(
                    f"{where} has DICOM and NIfTI; give each format a group of its own"
                )
            makers = [one_line(each.manufacturer) for each in (row, first) if each.manufacturer]
            if not mixed and len({vendor(maker) for maker in makers}) > 1:
                raise UsageError(
                    f"{where} has scans of {' and of '.join(makers)}, of which a model would learn "
                    'the mean; give each a group of its own, or set allow = ["mixed-scanners"] in '
                    "plan.toml"
                )
        rows.append(row)
    return rows


def _row(cells: Mapping[str, str | None], where: str) -> PlanRow:
    """A line of the table.

    Raises:
        UsageError: naming the line and the column.
    """
    values = {name: (cells.get(name) or "").strip() for name in COLUMNS}
    use = next((use for use, words in USES.items() if values["use"].casefold() in words), "")
    if not use:
        raise UsageError(f"{where}: use {values['use']!r}, expected yes or no")
    numbers: dict[str, float] = {}
    for name in NUMBERS:
        try:
            numbers[name] = float(values[name] or 0)
        except ValueError:
            numbers[name] = -1.0
        if not 0 <= numbers[name] < 1e6:
            raise UsageError(f"{where}: {name} {values[name]!r}, expected a number from 0")
    if use == "yes":
        for name, what in (("series_uid", "is no scan"), ("group", "has no group"),
                           ("patient", "names no patient"), ("path", "has no path")):  # fmt: skip
            if not values[name]:
                raise UsageError(f"{where}: {what}, so it cannot be used; set use to no")
        name = values["group"]
        if portable_name(name) != name or name.startswith("."):
            raise UsageError(
                f"{where}: group {name!r} is no name of a folder; take letters, digits, - and ."
            )
    texts = {name: values[name] for name in COLUMNS if name not in (*NUMBERS, "masks", "use")}
    return PlanRow(
        use=use,
        masks=tuple(part.strip() for part in values["masks"].split(SEPARATOR) if part.strip()),
        kvp=numbers["kvp"], thickness_mm=numbers["thickness_mm"],
        spacing_mm=numbers["spacing_mm"], pixel_mm=numbers["pixel_mm"],
        slices=int(numbers["slices"]), files=int(numbers["files"]),
        **texts,
    )  # fmt: skip


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study, or the measurements of one."""
    return (folder / PLAN_OPTIONS).exists() or (folder / "profiles").is_dir()
