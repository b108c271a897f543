"""Options of a study, as `plan.toml` holds them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cvsct.core.errors import UsageError
from cvsct.core.settings import what_must_be
from cvsct.core.text import did_you_mean
from cvsct.methods.registry import find_method
from cvsct.study.choice import ChoiceRules
from cvsct.study.groups import GroupRules
from cvsct.study.reference import ReachRules

FORMAT = 1

HEAD = """\
# A study of cvsct. Change what you like, then run `cvsct study run` on this folder; it does what is
# new and keeps the rest. Series are taken in or left out, and put into groups, in plan.csv.
"""


class FeatureOptions(BaseModel):
    """Regions and features, as `extract_features` takes them.

    Args:
        settings: PyRadiomics parameter file; empty for the default.
        binning: `ibsi`, `pyradiomics`, or empty for the default.
        dimensions: 3 or 2.
        structures: labels of masks to use; empty for all.
        label_names: names of the numbers in NIfTI masks, such as `{"1": "lesion"}`, so that they
            are one region with that of DICOM masks.
        rois: blocks of soft tissue per scan, where the study has no masks.
        roi_px: side of a block in pixels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: str = ""
    binning: str = ""
    dimensions: int = Field(default=3, ge=2, le=3)
    structures: tuple[str, ...] = ()
    label_names: dict[str, str] = {}
    rois: int = Field(default=4, ge=1)
    roi_px: int = Field(default=32, ge=8)


class ComBatSettings(BaseModel):
    """ComBat on the features, group by group.

    Args:
        covariates: columns of the table of patients whose effect is kept.
        min_patients: fewest patients of a group.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    covariates: tuple[str, ...] = ()
    min_patients: int = Field(default=5, ge=2)


class StudyOptions(BaseModel):
    """All options of a study.

    Args:
        scans: folder of the scans.
        masks: files or folders of masks; empty for masks among the scans.
        mask_pattern: pattern of the masks' paths, as in `extract_features`.
        table: CSV file that tells scanners of scans whose headers do not.
        patients: CSV file with a column `patient`, covariates and outcomes.
        reference: group that all others are brought to.
        thickness_mm, spacing_mm: slice thickness and distance of the reference; 0 keeps each
            series' own.
        method: method of the models.
        settings: its settings.
        preset: preset of a network.
        max_minutes: minutes after which the training of a network stops; 0 for the preset's steps.
        allow: scans that models may learn from although they are refused otherwise, as in `train`:
            `phantom`, `derived`, `mixed-scanners`.
        hold_out: keep patients who were scanned in several groups out of the models, so that their
            scans check them.
        seed: seed of all randomness.
        choice, grouping, reach: rules of the plan.
        features, combat: rules of the tables.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scans: str
    masks: tuple[str, ...] = ()
    mask_pattern: str = ""
    table: str = ""
    patients: str = ""
    reference: str = ""
    thickness_mm: float = Field(default=0.0, ge=0, lt=100)
    spacing_mm: float = Field(default=0.0, ge=0, lt=100)
    method: str = "spectrum"
    settings: dict[str, Any] = {}
    preset: str = "cpu"
    max_minutes: float = Field(default=0.0, ge=0)
    allow: tuple[str, ...] = ()
    hold_out: bool = True
    seed: int = Field(default=0, ge=0)
    choice: ChoiceRules = ChoiceRules()
    grouping: GroupRules = GroupRules()
    reach: ReachRules = ReachRules()
    features: FeatureOptions = FeatureOptions()
    combat: ComBatSettings = ComBatSettings()


RULES = ("method", "settings", "preset", "max_minutes", "allow", "hold_out", "seed", "choice",
         "grouping", "reach", "features", "combat")  # fmt: skip
"""Options that another plan can take over; all others are of one study."""


def read_rules(path: Path) -> dict[str, Any]:
    """Rules of a `plan.toml`, of this study or another one.

    Raises:
        UsageError: as `read_toml`.
    """
    values = read_toml(path).model_dump(mode="json")
    return {name: values[name] for name in RULES}


def changed_rules(path: Path | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Rules of a `plan.toml`, or the default ones, with changes.

    Args:
        path: the file; None for the default rules.
        changes: new values by name, of tables by the names in them; None changes nothing.

    Raises:
        UsageError: as `read_toml`.
    """
    rules = read_rules(path) if path is not None else {}
    for name, value in changes.items():
        if isinstance(value, Mapping):
            given = {key: new for key, new in value.items() if new is not None}
            rules[name] = {**rules.get(name, {}), **given}
        elif value is not None:
            rules[name] = value
    return rules


def make_options(values: Mapping[str, Any]) -> StudyOptions:
    """Options from values given by name.

    Raises:
        UsageError: naming the first that does not exist or is wrong.
    """
    try:
        return StudyOptions.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explained(error)) from None


def check_method(options: StudyOptions) -> None:
    """Check the method, its preset and its settings, before anything is done.

    Raises:
        UsageError: if one does not exist, with the nearest one, or the method needs pairs.
    """
    method = find_method(options.method)
    if method.kind == "paired":
        raise UsageError(f"method {method.name} learns from pairs; a study's scans are unpaired")
    method.configure(options.preset, {**method.settings, **options.settings})


def write_toml(options: StudyOptions, groups: Mapping[str, str]) -> str:
    """Text of `plan.toml`.

    Args:
        groups: a line on each group, by its name, as comments.
    """
    values = options.model_dump(mode="json")
    tables = {name: value for name, value in values.items()
              if isinstance(value, dict) and name != "settings"}  # fmt: skip
    lines = [HEAD, f"format = {FORMAT}"]
    for name, value in values.items():
        if name in tables:
            continue
        lines.append(f"{name} = {_toml(value)}")
        if name == "reference":
            lines += [f"#   {group}: {about}" for group, about in groups.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A value as TOML; of strings, numbers and lists JSON's words are TOML's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def read_toml(path: Path) -> StudyOptions:
    """Options from `plan.toml`.

    Raises:
        UsageError: if it cannot be read, naming the line or the key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write its mark
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; make a plan with `cvsct study plan`") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from None
    version = values.pop("format", None)
    if version != FORMAT:
        raise UsageError(f"{path}: format {version}, this version reads {FORMAT}")
    try:
        return StudyOptions.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explained(error, path, text)) from None


def _explained(error: ValidationError, path: Path | None = None, text: str = "") -> str:
    """The first thing that is wrong, with its line in a file."""
    first = error.errors()[0]
    *tables, key = [str(part) for part in first["loc"] if not isinstance(part, int)] or [""]
    line = _line_of(text, tables[0] if tables else "", key)
    file = f"{path}{f', line {line}' if line else ''}: " if path else ""
    where = f"{file}{'.'.join([*tables, key])}"
    if first["type"] == "extra_forbidden":
        model: Any = StudyOptions
        if tables:
            model = type(getattr(StudyOptions(scans=""), tables[0]))
        return f"{where} does not exist; {did_you_mean(key, model.model_fields)}remove it"
    return f"{where}: {what_must_be(first)}"


def _line_of(text: str, table: str, key: str) -> int:
    """Number of the line that sets a key in a table; 0 where there is none."""
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            current = stripped.strip("[] ")
        elif current == table and stripped.split("=")[0].strip().strip('"') == key:
            return number
    return 0
