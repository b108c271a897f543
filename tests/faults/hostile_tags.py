"""Thirty hostile values in every text of a header: `python -m tests.faults.hostile_tags`.

Paths, control characters, terminal sequences, markup, formulas, characters that turn the reading
direction. Nothing may be written outside the output folder, steer the terminal, or reach a page or
a table as anything but text.
"""

from __future__ import annotations

import contextlib
import csv
import html.parser
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from pydicom import Dataset

from cvsct.core.masks import MaskedRegion
from tests.conftest import phantom_hu
from tests.faults.commands import call, files_under
from tests.faults.finding import Finding, script
from tests.faults.models import write_model
from tests.support.dicom_files import Change, write_series

GOAL = "hostile attributes: nothing outside OUT, no sequence on the terminal, only text in pages"
VALUES = (
    *("../../etc/x", "/etc/passwd", "..", "C:\\x\\y", "~/x", "a/b/c", "file:///etc/passwd"),
    *("a\0b", "a\nb", "a\r\ncvsct: error: forged", "x" * 300, "", " ", "-rf", "--out=/tmp/x"),
    *("\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "\x08\x08\x08back", "\u202egnp.exe"),
    *(
        "\u2066x\u2069",
        "\u200bzero",
        "$(touch y)",
        "`touch y`",
        "; touch y",
        "%s%n",
        "{0.__class__}",
    ),
    *("=cmd|' /C calc'!A0", "@SUM(1)", "+1+cmd|' /C calc'!A0"),
)
MARKUP = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{ 7*7 }}",
    "'\"><svg/onload=x>",
)
TAGS = (
    *("PatientID", "PatientName", "SeriesDescription", "ProtocolName", "StudyID", "StationName"),
    *("StudyDescription", "InstitutionName", "AccessionNumber", "DeviceSerialNumber"),
    *("Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "DerivationDescription"),
)
UIDS = ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def hostile_tags(
    folder: Path, count: int, seed: int, values: Sequence[str] = VALUES, report: bool = True
) -> Finding:
    """So many values, and markup in a report; a seed changes nothing."""
    chosen = values[:count]
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(folder / "cache")), _unheard():
        model = write_model(folder / "model")
        failures = [
            f"{value[:40]!r}: {wrong}"
            for i, value in enumerate(chosen)
            for wrong in _tried(folder / str(i), model, value)
        ]
        if report:
            failures += _reported(folder / "report")
    return Finding(GOAL, len(chosen), tuple(failures), {"attributes": len(TAGS) + len(UIDS)})


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # while hostile sources are made
        yield


def setting(value: str, *keywords: str) -> Change:
    """A change of slices that puts a value everywhere."""

    def change(ds: Dataset, i: int) -> None:
        ds.SpecificCharacterSet = "ISO_IR 192"
        for keyword in keywords:
            setattr(ds, keyword, value)

    return change


def _tried(folder: Path, model: Path, value: str) -> Iterator[str]:
    """Texts alone, which are read; then UIDs too, which are read or refused."""
    ways = {"texts": TAGS}
    if value.strip() and max(value) <= "\xff":  # others cannot be written as a UID
        ways["uids"] = (*TAGS, *UIDS)
    for name, keywords in ways.items():
        place = folder / name / "deep"
        source = write_series(place / "source", 2, change=setting(value, *keywords))
        before = files_under(folder)
        words = ("harmonize", source, "--model", model, "--out", place / "out", "--nifti")
        code, *said = call(*words)
        if name == "texts" and code:
            yield f"not harmonised: {said}"
        said += [*call("inspect", source)[1:], *call("inspect", source, "--json")[1:]]
        after = files_under(folder)
        if {path: after.get(path) for path in before} != before:
            yield "files that were there have changed"
        outside = [path for path in after.keys() - before if place / "out" not in path.parents]
        if outside:
            yield f"written outside: {outside}"
        shown = "".join(said)
        if not all(char.isprintable() or char == "\n" for char in shown):
            yield f"not only text on the terminal: {shown!r}"
        if "\ncvsct: error: forged" in shown:
            yield "a forged line on the terminal"
        named = [str(path.relative_to(folder)) for path in after.keys() - before]
        if len(value.strip()) > 3 and any(value in each for each in named):
            yield f"names files: {named}"


class _Page(html.parser.HTMLParser):
    """Elements that hold script, and attributes that would run one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        if tag == "svg" or any(name.startswith("on") for name in held) or held.get("src") == "x":
            self.found.append(tag)

    def handle_data(self, data: str) -> None:
        if "alert(1)" in data and self.get_starttag_text() == "<script>":
            self.found.append("script")


def _reported(folder: Path) -> Iterator[str]:
    """Markup as maker and model, a formula as kernel, put through training and evaluation."""
    value = "".join(MARKUP)
    for name, seed, blur_px in (("source", 1, 0.0), ("target", 2, 0.8)):
        stored = (phantom_hu(seed, blur_px, slices=3) + 1024).astype("<u2")

        def change(ds: Dataset, i: int) -> None:
            setting(value, "Manufacturer", "ManufacturerModelName", "SeriesDescription")(ds, i)
            ds.ConvolutionKernel = "=cmd|' /C calc'!A0"

        write_series(folder / name, stored=stored, series=f"1.2.{seed}", change=change)
    sides = ("--source", folder / "source", "--target", folder / "target")
    said = call("train", "spectrum", *sides, "--out", folder / "model")
    said += call(
        *("harmonize", folder / "source", "--model", folder / "model"),
        *("--out", folder / "made", "--keep-equipment"),
    )
    said += call(
        *("evaluate", "--harmonized", folder / "made", *sides, "--rois", 3, "--workers", 1),
        *("--out", folder / "report"),
    )
    if [code for code in said if isinstance(code, int) and code]:
        yield f"not evaluated: {said}"
        return
    text = (folder / "report" / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    if page.found or "alert(1)" not in text or "49" in text.partition("Scans compared")[2][:400]:
        yield f"markup in the report: {page.found}"
    card = (folder / "model" / "card.md").read_text(encoding="utf-8")
    if "<script" in card or "<img" in card:
        yield "markup in the model's card"
    tables = sorted((folder / "report").rglob("*.csv"))
    yield from _formulas(*(path.read_text(encoding="utf-8") for path in tables), _labelled())


def _labelled() -> str:
    """A table whose region a mask has named by a formula."""
    from cvsct.evaluation.features.placement import PlacedRegion
    from cvsct.evaluation.features.radiomics import RegionFeatures
    from cvsct.evaluation.features.table_file import features_csv

    region = MaskedRegion(VALUES[-3], 0, 0, 0, np.ones((2, 2), dtype=bool))
    table = RegionFeatures(("a",), np.zeros((1, 1)), ())
    return features_csv({"target": table}, [PlacedRegion(0, 0.0, region)])


def _formulas(*tables: str) -> Iterator[str]:
    for table in tables:
        cells = {cell for row in csv.reader(io.StringIO(table)) for cell in row}
        begins = tuple("=@\t\r")
        if any(
            cell.startswith(begins) or ("cmd|" in cell and cell.startswith(("+", "-")))
            for cell in cells
        ):
            yield "a formula in a table"


if __name__ == "__main__":
    script(hostile_tags, len(VALUES))
