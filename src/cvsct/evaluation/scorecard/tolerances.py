"""Tolerances of the scorecard, from a TOML file."""

from __future__ import annotations

import importlib.resources
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, model_validator

from cvsct.core.errors import UsageError
from cvsct.core.settings import Settings, what_must_be
from cvsct.evaluation.image.tissues import Tissue

DEFAULTS_FILE = "tolerances.toml"


class Tolerance(Settings):
    """Tolerance of a figure whose target is 0, both ways."""

    model_config = ConfigDict(allow_inf_nan=False, strict=True)

    passes: float = Field(ge=0)
    """Largest absolute value that passes."""

    fails: float = Field(ge=0)
    """Absolute value beyond which it fails."""

    source: str = ""
    """Where the values come from."""

    @model_validator(mode="after")
    def _in_order(self) -> Tolerance:
        if self.fails < self.passes:
            raise ValueError(f"fails={self.fails:g} lies within passes={self.passes:g}")
        return self


class FeatureTolerance(Settings):
    """Tolerance of the mean concordance of features."""

    model_config = ConfigDict(allow_inf_nan=False, strict=True)

    passes: float = Field(le=1)
    """Smallest concordance that passes."""

    fails: float = Field(le=1)
    """Concordance below which it fails."""

    below_retest: float = Field(ge=0, le=1)
    """How far below the retest's a concordance may lie that passes as well."""

    source: str = ""
    """Where the values come from."""

    @model_validator(mode="after")
    def _in_order(self) -> FeatureTolerance:
        if self.fails > self.passes:
            raise ValueError(f"fails={self.fails:g} lies above passes={self.passes:g}")
        return self


class Tolerances(Settings):
    """Tolerances of all tiles."""

    features: FeatureTolerance
    """Of the mean concordance."""

    noise_level: Tolerance
    """Of the standard deviation of noise, relative to the target's."""

    noise_texture: Tolerance
    """Of the mean frequency of noise, relative to the target's."""

    resolution: Tolerance
    """Of the 50 % frequency of edges, relative to the target's."""

    ct_numbers: dict[Tissue, Tolerance]
    """Of the mean difference from the target by tissue, in HU."""

    geometry: Tolerance
    """Of the displacement, in pixels."""

    guards: Tolerance
    """Of the share of flagged slices."""

    @classmethod
    def read(cls, path: Path | str | None = None) -> Tolerances:
        """The default tolerances, with those of a file in their place.

        A file need not hold them all: what it leaves out keeps its default.

        Args:
            path: TOML file with the tables and keys of the defaults; None for the defaults.

        Raises:
            UsageError: if the file cannot be read or is not TOML, or if it has unknown or
                impossible values.
        """
        text = importlib.resources.files(__package__).joinpath(DEFAULTS_FILE).read_text("utf-8")
        values = tomllib.loads(text)
        if path is not None:
            values = _merged(values, _toml(Path(path)), f"tolerances {path}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UsageError(f"tolerances {path}: {where}: {what_must_be(first)}") from error

    @classmethod
    def given(cls, tolerances: Tolerances | Path | str | None) -> Tolerances:
        """Tolerances as they are, or `read` from a file."""
        return tolerances if isinstance(tolerances, Tolerances) else cls.read(tolerances)


def _toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, ValueError) as error:
        raise UsageError(f"tolerances {path} cannot be read: {error}") from error
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of huge numbers and deep nesting too
        raise UsageError(f"tolerances {path} are no TOML: {error}") from error


def _merged(base: dict[str, Any], over: dict[str, Any], about: str) -> dict[str, Any]:
    """`base` with the values of `over`, table by table.

    Raises:
        UsageError: if `over` has a key that `base` lacks.
    """
    unknown = over.keys() - base.keys()
    if unknown:
        raise UsageError(
            f"{about} have no {', '.join(sorted(unknown))}; known here are {', '.join(base)}"
        )
    merged = dict(base)
    for key, value in over.items():
        if isinstance(base[key], dict):
            if not isinstance(value, dict):
                raise UsageError(f"{about}: {key} is a table, not {value!r}")
            merged[key] = _merged(base[key], value, f"{about}, {key},")
            if "source" in base[key] and "source" not in value:
                merged[key]["source"] = "given by the user"
        else:
            merged[key] = value
    return merged
