"""The command line that repeats an evaluation, without paths and names that could tell a person."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvsct.core.sides import SIDES
from cvsct.evaluation.settings import EvaluationSettings
from cvsct.io.dicom.header import label

IN_MEMORY = "(in memory)"
"""In place of the path of a side whose scans were given as volumes."""


def command_of(
    scans: Mapping[str, Any],
    settings: EvaluationSettings,
    masks: Sequence[Path] = (),
    structures: Sequence[str] = (),
    nodules: Path | str | None = None,
    tolerances: Any = None,
    pdf: bool = False,
) -> str:
    """The command line of an evaluation, with the options that are not at their defaults.

    Args:
        scans: path of each side, or volumes; None for a side that is not given.
        settings: settings of the evaluation.
        masks: files with regions.
        structures: the structures among them that were chosen.
        nodules: file with true nodules.
        tolerances: file with tolerances; None for the defaults.
        pdf: whether the report was printed.
    """
    defaults = EvaluationSettings()
    changed = {
        name: value
        for name in ("rois", "seed")
        if (value := getattr(settings, name)) != getattr(defaults, name)
    }
    return command_text(
        {
            **{SIDES[side].option: _path_or_words(given) for side, given in scans.items()},
            "--masks": masks,
            "--structures": structures,
            "--nodules": _path_or_words(nodules),
            "--regions": "slices" if settings.regions == "slices" else None,
            **{f"--{name}": value for name, value in changed.items()},
            "--pair": settings.pairing == "forced",
            "--unpaired": settings.pairing == "off",
            "--ibsi": settings.ibsi,
            "--tolerances": _path_or_words(tolerances),
            "--pdf": pdf,
            "--out": "OUT",
        }
    )


def _path_or_words(given: Any) -> Path | str | None:
    """A path, words in place of what was given in memory, or None where nothing was."""
    if given is None:
        return None
    return Path(given) if isinstance(given, Path | str) else IN_MEMORY


def command_text(options: Mapping[str, Any]) -> str:
    """The command line of `cvsct evaluate` with these options, without paths and names in them.

    Args:
        options: options that were given, by name. A path shows its last part, and that only where
            it can name no person. Of a sequence each item is given; True is a bare option; what is
            None, False or empty is left out.

    Example:
        >>> command_text({"--harmonized": Path("/h/Doe/target"), "--rois": 24, "--pdf": True})
        'cvsct evaluate --harmonized target --rois 24 --pdf'
    """
    words = ["cvsct", "evaluate"]
    for option, value in options.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is None or item is False or item == "":
                continue
            words.append(option)
            if item is not True:
                words.append(shlex.quote(label(item) if isinstance(item, Path) else str(item)))
    return " ".join(words)
