"""`cvsct methods`."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def methods(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the harmonisation methods."""
    from cvsct.methods.registry import METHODS

    if as_json:
        keys = ("name", "kind", "reversible", "recommended", "summary")
        print(json.dumps([{key: getattr(row, key) for key in keys} for row in METHODS.values()]))
        return
    width = max(map(len, METHODS))
    for row in METHODS.values():
        mark = "  (recommended)" if row.recommended else ""
        print(f"{row.name:<{width}} {row.kind:<10} {row.summary}{mark}")
