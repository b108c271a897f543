"""The model folder: weights, configuration, card, and a hash over all of them.

| file | what |
|---|---|
| `model.json` | method, settings, what it was trained on, figures of the training |
| `weights.safetensors` | every array the method learned |
| `card.md` | for people: training data, range of validity, limits |
| `a2b.onnx`, `b2a.onnx` | the networks as graphs, where there are any |
| `SHA256SUMS` | written last; a folder without it is an unfinished training |

Nothing here is ever unpickled: JSON and safetensors only. Other files in the folder are not opened.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cvsct.core.errors import ModelError, one_line
from cvsct.core.files import write_atomic
from cvsct.core.volume import ScanFacts, Scans, facts_of
from cvsct.model.integrity import read_files
from cvsct.model.onnx_check import refuse_foreign

FORMAT = 1
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "model.json", "weights.safetensors", "card.md"
SUMS_FILE = "SHA256SUMS"
Direction = Literal["a2b", "b2a"]
DIRECTIONS: tuple[Direction, Direction] = ("a2b", "b2a")
GRAPH_FILES: dict[str, str] = {direction: f"{direction}.onnx" for direction in DIRECTIONS}
MEASURED = "measured"
"""Key in `training` of figures on unseen scans, a table in the card."""
CENSUS = "census"
"""Key in `training` of the census of training scans, a table and warnings in the card."""
THIRD_PARTY = "third_party"
"""Key in `training` of weights of others that it used, with source and license: a table."""
TRAINING_UNITS = (
    "Gains are factors of amplitude at a frequency, and 1 leaves it as it is; `noise_added` is a "
    "share of the noise variance, 0 to 1; units end the names (`_per_mm` is cycles/mm, `_hu` HU), "
    "and numbers of patches and slices have none."
)
"""What the card says of the table of the training."""
CHECKPOINT_FILE = "checkpoint.pt"  # of a training that can be resumed; no part of the model
MAX_BYTES = {
    CONFIG_FILE: 4 * 2**20,
    WEIGHTS_FILE: 2 * 2**30,
    CARD_FILE: 4 * 2**20,
    **dict.fromkeys(GRAPH_FILES.values(), 64 * 2**20),
}
"""Largest size of each file of a model; the largest model here has 100 MiB of weights."""


@dataclass(frozen=True)
class Domain:
    """One side of a model: the scans it learned from, by technical attributes only."""

    scanners: tuple[str, ...]
    pixel_mm: tuple[float, float]
    thickness_mm: tuple[float, float]
    n_series: int
    n_slices: int

    @classmethod
    def of(cls, scans: Scans) -> Domain:
        """Describe training scans by their headers; no pixels are read."""
        return cls.from_facts(facts_of(scans))

    @classmethod
    def from_facts(cls, facts: Sequence[ScanFacts]) -> Domain:
        """Describe training scans by distinct acquisitions, and lowest and highest spacings."""
        pixels = [round(math.sqrt(scan.pixel_mm[0] * scan.pixel_mm[1]), 4) for scan in facts]
        thick = [round(scan.thickness_mm, 4) for scan in facts]
        return cls(
            scanners=tuple(sorted({str(scan.acquisition) for scan in facts})),
            pixel_mm=(min(pixels), max(pixels)),
            thickness_mm=(min(thick), max(thick)),
            n_series=len(facts),
            n_slices=sum(scan.shape[0] for scan in facts),
        )

    def __str__(self) -> str:
        return "; ".join(self.scanners)


@dataclass(frozen=True)
class Bundle:
    """Trained model, independent of the library that trained it.

    Args:
        method: its row of the METHODS table.
        settings: what rebuilds it around the weights; plain JSON values.
        weights: learned arrays by name.
        source: domain A. The model maps A to B, or B to A where it can be reversed.
        target: domain B.
        training: preset, seed and figures of the training; plain JSON values.
        graphs: ONNX files by direction, `a2b` and `b2a`; a model may have none.
        guard: calibration of the guards (`cvsct.guard`): limits by side and direction, what each
            was calibrated on, and the reference of both sides; plain JSON values, empty where
            nothing was calibrated.
        sha256: hash over all files, set when the bundle was written or read.
    """

    method: str
    settings: dict[str, Any]
    weights: dict[str, np.ndarray]
    source: Domain
    target: Domain
    training: dict[str, Any] = field(default_factory=dict)
    graphs: Mapping[str, bytes] = field(default_factory=dict)
    guard: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def write(self, folder: Path) -> Bundle:
        """Write the model folder; existing files of the same names are replaced, sums last.

        Returns:
            This bundle with its hash.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMS_FILE).unlink(missing_ok=True)
        about = {
            "format": FORMAT,
            "method": self.method,
            "settings": self.settings,
            "source": asdict(self.source),
            "target": asdict(self.target),
            "training": self.training,
            **({"guard": self.guard} if self.guard else {}),
        }
        contiguous = {name: np.ascontiguousarray(array) for name, array in self.weights.items()}
        files = {
            CONFIG_FILE: (json.dumps(about, indent=2, allow_nan=False) + "\n").encode(),
            WEIGHTS_FILE: save(contiguous),
            CARD_FILE: self.card().encode(),
            **{GRAPH_FILES[direction]: graph for direction, graph in self.graphs.items()},
        }
        for name in set(GRAPH_FILES.values()) - files.keys():
            (folder / name).unlink(missing_ok=True)  # of an earlier training in this folder
        for name, content in files.items():
            write_atomic(folder / name, content)
        sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in files)
        write_atomic(folder / SUMS_FILE, sums)
        return replace(self, sha256=hashlib.sha256(sums.encode()).hexdigest())

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read a model folder after checking every file against its hash.

        Raises:
            ModelError: if the folder is missing, unfinished, altered, or of another format.
        """
        sums, files = read_files(folder, SUMS_FILE, MAX_BYTES, GRAPH_FILES.values())
        graphs = {
            direction: files[name] for direction, name in GRAPH_FILES.items() if name in files
        }
        for direction, graph in graphs.items():
            refuse_foreign(f"{folder}: {GRAPH_FILES[direction]}", graph)
        try:
            about = json.loads(files[CONFIG_FILE])
            weights = load(files[WEIGHTS_FILE])
            if about["format"] != FORMAT:
                raise ModelError(
                    f"{folder}: model format {about['format']}, this version reads {FORMAT}; "
                    "train it again or install the matching cvsct"
                )
            _refuse_wrong_types(about, weights)
            return cls(
                method=about["method"],
                settings=about["settings"],
                weights=weights,
                source=_domain(about["source"]),
                target=_domain(about["target"]),
                training=about["training"],
                guard=about.get("guard", {}),
                graphs=graphs,
                sha256=hashlib.sha256(sums.encode()).hexdigest(),
            )
        except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise ModelError(
                f"{folder}: not a readable model ({str(error)[:200]}); train it again"
            ) from error

    def card(self) -> str:
        """The model card, as Markdown."""
        rows = "\n".join(
            f"| {key} | {_cell(value)} |"
            for key, value in self.training.items()
            if key not in (MEASURED, CENSUS, THIRD_PARTY)
        )
        pairs = self.training.get("pairs")
        matched = f"paired, {pairs} slices of one with those of the other" if pairs else "unpaired"
        return (
            f"# Model card: {self.method}\n\n"
            "**Research use only.** Not a medical device; do not use its images for diagnosis.\n\n"
            f"- maps images of: {html.escape(str(self.source), quote=False)}\n"
            f"- to look like: {html.escape(str(self.target), quote=False)}\n"
            f"- trained on {self.source.n_slices} slices in {self.source.n_series} series, and "
            f"{self.target.n_slices} in {self.target.n_series}; {matched}\n"
            f"- pixel spacing {_span(self.source.pixel_mm)} and {_span(self.target.pixel_mm)} mm; "
            f"slice thickness {_span(self.source.thickness_mm)} and "
            f"{_span(self.target.thickness_mm)} mm\n\n"
            "Valid for scans like these. Other scanners, kernels, doses, slice thicknesses or body "
            "parts were not seen in training: check with `cvsct evaluate` before use.\n\n"
            "Where it fails: it cannot bring back detail that the source never recorded, and a "
            "network can invent or remove fine structure, the more so where a scan differs from "
            "those above. Measure no lesion on its images alone; look at what was changed in the "
            "report's residual maps.\n\n"
            + _census_section(self.training.get(CENSUS, {}))
            + _measured_section(self.training.get(MEASURED, {}))
            + f"## Training\n\n{TRAINING_UNITS}\n\n| item | value |\n|---|---|\n{rows}\n"
            + _third_party_section(self.training.get(THIRD_PARTY, []))
            + _guard_section(self.guard)
        )


def _refuse_wrong_types(about: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
    """Refuse values of other types than `write` writes, and weights that are no numbers.

    Raises:
        TypeError, ValueError: with the name of what is wrong.
    """
    kinds = {"method": str, "settings": dict, "source": dict, "target": dict, "training": dict}
    for name, kind in kinds.items():
        if not isinstance(about[name], kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    for name, array in weights.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"weights {name} hold values that are not finite")


def _domain(value: dict[str, Any]) -> Domain:
    return Domain(
        scanners=tuple(one_line(str(scanner)) for scanner in value["scanners"]),
        pixel_mm=(float(value["pixel_mm"][0]), float(value["pixel_mm"][1])),
        thickness_mm=(float(value["thickness_mm"][0]), float(value["thickness_mm"][1])),
        n_series=int(value["n_series"]),
        n_slices=int(value["n_slices"]),
    )


def _measured_section(measured: dict[str, Any]) -> str:
    """The card's table of figures on unseen scans, `on` telling which; nothing without any."""
    if not measured:
        return ""
    return f"## Measured\n\n{measured['on']}\n\n{_table(measured['rows'])}\n\n"


def _census_section(census: dict[str, Any]) -> str:
    """The card's table of the scans learned from, and what about them may spoil the model."""
    if not census:
        return ""
    lists = (
        ("What may spoil the model:", census.get("warnings", [])),
        ("Left out, for they had to be refused:", census.get("left_out", [])),
    )
    listing = "".join(
        f"\n{title}\n\n" + "".join(f"- {html.escape(entry, quote=False)}\n" for entry in entries)
        for title, entries in lists
        if entries
    )
    return f"## Scans it learned from\n\n{_table(census['scans'])}\n{listing}\n"


def _third_party_section(entries: list[dict[str, Any]]) -> str:
    """The card's attribution of weights of others that the training used; nothing without any."""
    if not entries:
        return ""
    return f"\n## Weights of others\n\n{_table(entries)}\n"


def _table(rows: list[dict[str, Any]]) -> str:
    headings = list(rows[0])
    cells = (
        [html.escape(_cell_text(row[heading]), quote=False) for heading in headings] for row in rows
    )
    lines = [headings, ["---"] * len(headings), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell_text(value: Any) -> str:
    """Text for a cell of a table, on one line and without the separator."""
    return one_line(str(value)).replace("|", "/")


def _guard_section(guard: dict[str, Any]) -> str:
    """The card's table of thresholds; nothing for a model without any."""
    if not guard:
        return ""
    rows = "\n".join(
        f"| {of} | {name} | {limit:g} | {_largest_held_out(guard, of, name)} "
        f"| {guard['calibrated_on'][of]} |"
        for of, limits in guard["limits"].items()
        for name, limit in limits.items()
    )
    warnings = "".join(
        f"**Warning, {direction}**: this model changes even scans it learned from too much. "
        f"{one_line('; '.join(reasons))}. Such slices are flagged.\n\n"
        for direction, reasons in guard.get("beyond_highest", {}).items()
    )
    return (
        f"\n## Guards\n\n{warnings}"
        "`cvsct harmonize` refuses a scan that is further than this from the side it is mapped "
        "from, and flags a slice that is changed by more (a2b, b2a). Override with "
        "`--guard NAME=VALUE` or `--guard NAME=off`. Units end the names (kV, dB, mm, HU, nats); "
        "factors and ratios have none, structures are in standard deviations "
        "(docs/reference/guards.md).\n\n"
        "| of | name | limit | largest seen left out | calibrated on |\n|---|---|---|---|---|\n"
        f"{rows}\n"
    )


def _largest_held_out(guard: dict[str, Any], of: str, name: str) -> str:
    held_out = guard["known"].get(of, {}).get("held_out", {})
    return f"{held_out[name]:g}" if name in held_out else "-"


def _cell(value: Any) -> str:
    """A table cell; a group of figures as `name value` pairs."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return str(value)


def _span(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
