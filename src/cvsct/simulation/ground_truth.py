"""The ground truth of a benchmark: where each body's nodules are.

Positions are in the patient's coordinates of the DICOM files (x to the left, y to the back, z to
the head, mm), which are the body's own: one list serves every scan of a body. Whoever builds a
body writes it to `bodies/<body>.json`; at the end all go into `nodules.csv`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cvsct.core.files import write_atomic, write_json
from cvsct.simulation.benchmark import Subject

BODIES, NODULES = "bodies", "nodules.csv"
_FIGURES = ("diameter_mm", "hu", "shape", "volume_mm3")
_COLUMNS = ("body", "nodule", "x_mm", "y_mm", "z_mm", *_FIGURES)


@runtime_checkable
class HasNodules(Protocol):
    """What this module needs of a phantom."""

    @property
    def z_range_mm(self) -> tuple[float, float]:
        """Where a chest scan would begin and end."""

    @property
    def nodules(self) -> Sequence[Any]:
        """Its nodules; see `nodules.Nodule`."""


def write_body(out: Path, subject: Subject, phantom: HasNodules) -> None:
    """Write one body's truth, unless it is there."""
    path = out / BODIES / f"{subject.name}.json"
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    nodules = [
        {
            **dict(zip(("x_mm", "y_mm", "z_mm"), nodule.centre_mm, strict=True)),
            **{name: getattr(nodule, name) for name in _FIGURES},
        }
        for nodule in phantom.nodules
    ]
    about = {"body": subject.name, "kind": subject.kind, "seed": subject.seed}
    write_json(path, {**about, "z_range_mm": list(phantom.z_range_mm), "nodules": nodules})


def gather(out: Path, subjects: Iterable[Subject]) -> list[dict[str, Any]]:
    """Write `nodules.csv` of all bodies there are; gives what their files say."""
    paths = [out / BODIES / f"{subject.name}.json" for subject in subjects]
    bodies = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    for body in bodies:
        for number, nodule in enumerate(body["nodules"], start=1):
            table.writerow({"body": body["body"], "nodule": number, **nodule})
    write_atomic(out / NODULES, text.getvalue())
    return bodies
