"""The report of an evaluation as one HTML page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cvsct.core.sides import SIDES
from cvsct.evaluation.report import figures
from cvsct.evaluation.report.examples import Example, example_slices
from cvsct.evaluation.report.feature_tables import agreement_tables, feature_table
from cvsct.evaluation.report.identity_tables import identity_rows, sides_table
from cvsct.evaluation.report.image_tables import (
    guard_tables,
    image_tables,
    physics_tables,
    texture_table,
    uncertainty_tables,
)
from cvsct.evaluation.report.plots import (
    concordance_figures,
    physics_figures,
    slice_figures,
    texture_figures,
)
from cvsct.evaluation.report.templates import package_text, render
from cvsct.evaluation.report.verdict import verdict
from cvsct.evaluation.report.viewer import OFFSET_HU, WINDOWS, slices_for
from cvsct.evaluation.result import Evaluation
from cvsct.evaluation.table import Table

VIEWER_SIDES = ("source", "harmonized", "target", "retest")
"""Sides in the order in which the viewer offers them."""


@dataclass(frozen=True)
class Section:
    """Section of the report.

    Args:
        key: its anchor in the page.
        title: its heading.
        tables: its tables.
        figures: its figures: data URL, alternative text and caption.
        details: a long table, which the reader opens.
        viewer: JSON for the script of the slice viewer; empty without a viewer.
    """

    key: str
    title: str
    tables: tuple[Table, ...] = ()
    figures: tuple[dict[str, str], ...] = ()
    details: Table | None = None
    viewer: str = ""


def report_html(evaluation: Evaluation) -> str:
    """Render the report: scorecard, identity, then tables, figures and how they were computed.

    Raises:
        MissingExtraError: if the extra `evaluate` is not installed.
    """
    sections = [
        section
        for section in _sections(evaluation)
        if section.tables or section.figures or section.viewer
    ]
    has_viewer = any(section.viewer for section in sections)
    return render(
        "report.html.j2",
        scorecard=evaluation.scorecard,
        identity=identity_rows(evaluation.identity) if evaluation.identity else (),
        side_table=sides_table(evaluation),
        verdict=verdict(evaluation),
        notes=evaluation.notes,
        sides=SIDES.values(),
        sections=sections,
        settings=evaluation.settings,
        extraction=evaluation.extraction,
        residual_hu=figures.RESIDUAL_HU,
        script=package_text("viewer.js") if has_viewer else "",
        viewer_style=package_text("viewer.css") if has_viewer else "",
    )


def _sections(evaluation: Evaluation) -> list[Section]:
    examples = example_slices(evaluation)
    return [
        Section(
            "features",
            "Do features agree?",
            tuple(agreement_tables(evaluation)),
            tuple(concordance_figures(evaluation)),
            feature_table(evaluation),
        ),
        Section("guards", "Findings of the guards", tuple(guard_tables(evaluation.guards))),
        Section("uncertainty", "Uncertainty", tuple(uncertainty_tables(evaluation.uncertainty))),
        Section("images", "Do images agree?", tuple(image_tables(evaluation))),
        Section(
            "look",
            "Example slices",
            figures=tuple(slice_figures(evaluation, examples)),
            viewer=_viewer_data(examples) if examples else "",
        ),
        Section(
            "physics",
            "Physics",
            tuple(physics_tables(evaluation)),
            tuple(physics_figures(evaluation)),
        ),
        Section(
            "texture",
            "Texture",
            (texture_table(evaluation),),
            tuple(texture_figures(evaluation)),
        ),
    ]


def _viewer_data(examples: Sequence[Example]) -> str:
    """JSON that viewer.js reads, without a `<` that could end its script element."""
    shared = examples[0].shared
    shown = [side for side in VIEWER_SIDES if getattr(shared, side) is not None]
    labels = {side: figures.LABELS[side] for side in shown}
    pairs = [("source", "target"), ("harmonized", "target"), ("harmonized", "source")]
    data = {
        "slices": slices_for(examples, labels),
        "differences": [[labels[a], labels[b]] for a, b in pairs if {a, b} <= set(shown)],
        "windows": WINDOWS,
        "offset": OFFSET_HU,
        "residual": figures.RESIDUAL_HU,
        "minus": " \N{MINUS SIGN} ",
    }
    return json.dumps(data).replace("<", "\\u003c")
