"""Ground truth of a simulated benchmark: positions, sizes and densities of all nodules.

Positions are in mm in the patient coordinates of the DICOM files (x to the left, y to the back, z
to the head). These are also the coordinates of the body, so one list serves every scan of a body.
The process that builds a body writes `bodies/<body>.json`; at the end of the simulation
`nodules.csv` collects the nodules of all bodies.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cvsct.core.files import write_atomic, write_json
from cvsct.simulation.benchmark import Subject

BODIES, NODULES = "bodies", "nodules.csv"
_NODULE_VALUES = ("diameter_mm", "hu", "shape", "volume_mm3")
_COLUMNS = ("body", "nodule", "x_mm", "y_mm", "z_mm", *_NODULE_VALUES)


@runtime_checkable
class HasNodules(Protocol):
    """Interface of a body with nodules, which `phantom.Phantom` implements."""

    @property
    def z_range_mm(self) -> tuple[float, float]:
        """Range of a chest scan along z, in mm."""

    @property
    def nodules(self) -> Sequence[Any]:
        """Nodules of the body; see `nodules.Nodule`."""

    @property
    def lesion(self) -> Any:
        """Lesion of the body, or None; see `lesion.Lesion`."""


def write_body(out: Path, subject: Subject, phantom: HasNodules) -> None:
    """Write the ground truth of a body to `bodies/<body>.json`, unless the file exists."""
    path = out / BODIES / f"{subject.name}.json"
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    nodules = [
        {
            **dict(zip(("x_mm", "y_mm", "z_mm"), nodule.centre_mm, strict=True)),
            **{name: getattr(nodule, name) for name in _NODULE_VALUES},
        }
        for nodule in phantom.nodules
    ]
    identity = {"body": subject.name, "kind": subject.kind, "seed": subject.seed}
    record = {**identity, "z_range_mm": list(phantom.z_range_mm), "nodules": nodules}
    if subject.emphysema:
        record["emphysema"] = subject.emphysema
    if phantom.lesion is not None:
        record["lesion"] = phantom.lesion.record()
    write_json(path, record)


def write_nodule_table(out: Path, subjects: Iterable[Subject]) -> list[dict[str, Any]]:
    """Write `nodules.csv` from the ground truth files of the bodies.

    Args:
        out: folder of the benchmark.
        subjects: bodies, in the order of the table; those without a file are left out.

    Returns:
        Contents of the bodies' ground truth files.
    """
    paths = [out / BODIES / f"{subject.name}.json" for subject in subjects]
    bodies = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    rows = [
        {"body": body["body"], "nodule": number, **nodule}
        for body in bodies
        for number, nodule in enumerate(body["nodules"], start=1)
    ]
    write_table(out / NODULES, _COLUMNS, rows)
    return bodies


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as a CSV file, atomically."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomic(path, text.getvalue())
