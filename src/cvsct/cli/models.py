"""`cvsct models`."""

from __future__ import annotations

from typing import Annotated

import typer

from cvsct.cli.command import complete_model
from cvsct.cli.console import report_result
from cvsct.core.text import columns


def models(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="One of them, or a model folder: its card.",
            autocompletion=complete_model,
        ),
    ] = "",
) -> None:
    """List the models that come with this version, or show the card and settings of one."""
    from cvsct.api.model import list_models, load_model

    if name:
        model = load_model(name)
        about = {
            "name": name, "method": model.method, "source": model.source, "target": model.target,
            "directions": list(model.directions), "sha256": model.sha256,
            "settings": model.bundle.settings, "training": model.bundle.training,
        }  # fmt: skip
        report_result(model.card(), about)
        return
    rows = []
    for bundled in list_models():
        model = load_model(bundled)
        rows.append({"name": bundled, "method": model.method, "source": model.source,
                     "target": model.target})  # fmt: skip
    if rows:
        text = columns([tuple(rows[0]), *(tuple(row.values()) for row in rows)])
    else:
        text = "no models come with this version; `cvsct train` makes one from your own scans"
    report_result(text, rows)
