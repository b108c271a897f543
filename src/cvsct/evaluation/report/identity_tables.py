"""The report's identity block: rows on the evaluation and its model, and the table of its scans."""

from __future__ import annotations

from collections.abc import Callable

from cvsct.core.sides import HARMONIZED, SIDES
from cvsct.evaluation.identity import Identity, ModelIdentity, Range, SideIdentity
from cvsct.evaluation.report.figures import LABELS
from cvsct.evaluation.result import Evaluation
from cvsct.evaluation.table import Table

UNKNOWN = "unknown"
"""Cell of an attribute that the files do not hold."""

HIDDEN = "file-... stands for a name that might tell a person"
"""Why a command line in a report cannot be typed as it stands."""

MAX_PATIENTS = 4
"""Maximum number of pseudonyms in a cell."""


def identity_rows(identity: Identity) -> list[tuple[str, str]]:
    """Rows on when, how and with which model the evaluation was made, as name and text."""
    day, _, clock = identity.created.partition("T")
    return [
        ("Date", f"{day} {clock.removesuffix('Z')} UTC"),
        ("Command", _command(identity.command)),
        ("Program", f"cvsct {identity.version}"),
        *_model_rows(identity.model),
    ]


def _command(command: str) -> str:
    """The command with what its `file-` names are, where it has any."""
    return f"{command} ({HIDDEN})" if "file-" in command else command


def sides_table(evaluation: Evaluation) -> Table:
    """Table of the scans of each side; their scanners alone where no identity is known."""
    identity = evaluation.identity
    if identity is None:
        return Table(
            "scans", "", "Scans compared", ("", "Acquiring scanner"),
            tuple((LABELS[side], scanner) for side, scanner in evaluation.scanners.items()),
        )  # fmt: skip
    sides = identity.sides
    lines: list[tuple[str, Callable[[SideIdentity], str]]] = [
        ("scanner", lambda s: _scanner(s, identity)),
        ("series", lambda s: str(s.n_series)),
        ("slices", lambda s: str(s.n_slices)),
        ("slice thickness (mm)", lambda s: _range(s.thickness_mm)),
        ("distance of slices (mm)", lambda s: _range(s.spacing_mm)),
        ("pixel (mm)", lambda s: _range(s.pixel_mm)),
        ("exposure (mAs)", lambda s: _range(s.exposure_mas)),
        ("CTDIvol (mGy)", lambda s: _range(s.ctdi_vol_mgy)),
        ("patient, pseudonym", lambda s: _patients(s.patients)),
    ]
    return Table(
        "scans",
        "",
        "Scans compared, from their headers",
        ("", *(SIDES[side].label for side in sides)),
        tuple((name, *(cell(side) for side in sides.values())) for name, cell in lines),
    )


def _scanner(side: SideIdentity, identity: Identity) -> str:
    """Scanner of a side; of derived images the kernel is that of their source."""
    model = identity.model
    if side != identity.sides.get(HARMONIZED.name) or model is None or not model.maps_to:
        return side.scanners
    return f"{side.scanners} of the source; made to read like {model.maps_to}"


def _model_rows(model: ModelIdentity | None) -> list[tuple[str, str]]:
    if model is None:
        return [("Model", f"{UNKNOWN}: no manifest of cvsct harmonize beside the images")]
    direction = ", from its target to its source" if model.reverse else ""
    name = f" {model.name}" if model.name and model.name != model.method else ""
    return [
        ("Model", f"{model.method or UNKNOWN}{name}{direction}"),
        ("Model's sha256", model.sha256),
        *(("Trained on", domain) for domain in model.trained_on or (UNKNOWN,)),
    ]


def _range(values: Range | None) -> str:
    return values.text() if values else UNKNOWN


def _patients(pseudonyms: tuple[str, ...]) -> str:
    if not pseudonyms:
        return UNKNOWN
    shown = ", ".join(pseudonyms[:MAX_PATIENTS])
    more = len(pseudonyms) - MAX_PATIENTS
    return f"{shown} and {more} more" if more > 0 else shown
