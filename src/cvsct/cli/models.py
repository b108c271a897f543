"""`cvsct models`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cvsct.core.text import columns


def models(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the models that come with this version, for `harmonize --model NAME`."""
    from cvsct.model.bundle import Bundle
    from cvsct.model.pretrained import bundled, bundled_names

    read = {name: Bundle.read(bundled(name)) for name in bundled_names()}
    rows = [
        {"name": name, "method": one.method, "source": str(one.source), "target": str(one.target)}
        for name, one in read.items()
    ]
    if as_json:
        print(json.dumps(rows))
    elif rows:
        print(columns([tuple(rows[0]), *(tuple(row.values()) for row in rows)]))
    else:
        print("no models come with this version; `cvsct train` makes one from your own scans")
