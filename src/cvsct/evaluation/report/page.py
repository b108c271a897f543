"""The report of an evaluation as one HTML page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cvsct.core.masks import SOFT_TISSUE_WINDOW
from cvsct.core.sampling import spread
from cvsct.core.sides import SIDES
from cvsct.evaluation.report import figures
from cvsct.evaluation.report.feature_tables import agreement_tables, feature_table
from cvsct.evaluation.report.image_tables import (
    guard_tables,
    image_tables,
    physics_tables,
    texture_table,
)
from cvsct.evaluation.report.templates import package_text, render
from cvsct.evaluation.report.verdict import verdict
from cvsct.evaluation.report.viewer import OFFSET_HU, WINDOWS, slices_for
from cvsct.evaluation.result import Evaluation
from cvsct.evaluation.shared_slices import SharedSlices
from cvsct.evaluation.table import Table


@dataclass(frozen=True)
class Section:
    """Section of the report.

    Args:
        key: its anchor in the page.
        title: its heading.
        tables: its tables.
        figures: its figures: PNG in base64, alternative text and caption.
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
    """Render the report: the verdict, then tables, figures and how they were computed.

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
        verdict=verdict(evaluation),
        notes=evaluation.notes,
        scanners=[(figures.LABELS[side], scanner) for side, scanner in evaluation.scanners.items()],
        sides=SIDES.values(),
        sections=sections,
        settings=evaluation.settings,
        extraction=evaluation.extraction,
        residual_hu=figures.RESIDUAL_HU,
        script=package_text("viewer.js") if has_viewer else "",
    )


def _sections(evaluation: Evaluation) -> list[Section]:
    examples = _examples(evaluation)
    return [
        Section(
            "features",
            "Do features agree?",
            tuple(agreement_tables(evaluation)),
            tuple(_concordance_figures(evaluation)),
            feature_table(evaluation),
        ),
        Section("guards", "Findings of the guards", tuple(guard_tables(evaluation.guards))),
        Section("images", "Do images agree?", tuple(image_tables(evaluation))),
        Section(
            "look",
            "Example slices",
            figures=tuple(_slice_figures(evaluation, examples)),
            viewer=_viewer_data(examples) if examples else "",
        ),
        Section(
            "physics",
            "Physics",
            tuple(physics_tables(evaluation)),
            tuple(_physics_figures(evaluation)),
        ),
        Section(
            "texture",
            "Texture",
            (texture_table(evaluation),),
            tuple(_texture_figures(evaluation)),
        ),
    ]


def _concordance_figures(evaluation: Evaluation) -> list[dict[str, str]]:
    compared = evaluation.compared
    if not compared:
        return []
    figure = figures.new_figure(6.5, 3.4)
    classes = {side: comparison.across.classes for side, comparison in compared.items()}
    figures.draw_concordance(figure.subplots(), classes)
    return [
        _embedded(
            figure,
            "Concordance by feature class",
            f"Concordance over n = {len(evaluation.regions)} regions, 95 % intervals.",
        )
    ]


def _slice_figures(
    evaluation: Evaluation, examples: Sequence[tuple[SharedSlices, int]]
) -> list[dict[str, str]]:
    if not examples:
        return []
    low, high = SOFT_TISSUE_WINDOW.limits_hu
    n_shared = sum(len(slices.harmonized.hu) for slices in evaluation.shared)
    return [
        _embedded(
            figures.slice_rows(examples),
            "Example slices and residuals",
            f"n = {len(examples)} of {n_shared} slices. Images: {low:g} to "
            f"{high:g} HU. Differences: blue −{figures.RESIDUAL_HU:g} to red "
            f"+{figures.RESIDUAL_HU:g} HU.",
        )
    ]


def _physics_figures(evaluation: Evaluation) -> list[dict[str, str]]:
    physics = evaluation.physics
    embedded = []
    if physics.noise:
        figure = figures.new_figure(6.5, 3.4)
        figures.draw_noise_power(figure.subplots(), physics.noise)
        counts = sorted({noise.n_regions for noise in physics.noise.values()})
        embedded.append(
            _embedded(
                figure,
                "Noise power spectra",
                f"Noise power in homogeneous tissue, n = {'–'.join(map(str, counts))} regions; the "
                "lowest frequencies hold anatomy.",
            )
        )
    if physics.edges:
        figure = figures.new_figure(3.4 * len(physics.edges) + 1, 3.2)
        grid = figure.subplots(1, len(physics.edges), squeeze=False)[0]
        for axis, (kind, sides) in zip(grid, physics.edges.items(), strict=True):
            figures.draw_transfer(axis, sides).set_title(f"{kind} edges", fontsize=9)
        embedded.append(
            _embedded(
                figure,
                "Transfer over natural edges",
                "Transfer over natural edges. Anatomy blurs them too: compare the sides, not with "
                "a phantom's values.",
            )
        )
    return embedded


def _texture_figures(evaluation: Evaluation) -> list[dict[str, str]]:
    if not evaluation.texture:
        return []
    figure = figures.new_figure(6.5, 3.6)
    figures.draw_spectra(figure.subplots(), evaluation.texture)
    return [_embedded(figure, "Texture power spectra", "Soft-tissue texture power.")]


def _examples(evaluation: Evaluation) -> list[tuple[SharedSlices, int]]:
    """Slices to show, evenly spaced over all shared slices, as volume and slice number."""
    slices = [(shared, i) for shared in evaluation.shared for i in range(len(shared.harmonized.hu))]
    return [slices[i] for i in spread(len(slices), evaluation.settings.examples)]


def _viewer_data(examples: Sequence[tuple[SharedSlices, int]]) -> str:
    """JSON that viewer.js reads; safe in a script element: base64, numbers and fixed words."""
    shown = [side for side in ("source", "harmonized", "target") if getattr(examples[0][0], side)]
    labels = {side: figures.LABELS[side] for side in shown}
    pairs = [("source", "target"), ("harmonized", "target"), ("harmonized", "source")]
    return json.dumps(
        {
            "slices": slices_for(examples, labels),
            "differences": [[labels[a], labels[b]] for a, b in pairs if {a, b} <= set(shown)],
            "windows": WINDOWS,
            "offset": OFFSET_HU,
            "residual": figures.RESIDUAL_HU,
            "minus": " \N{MINUS SIGN} ",
        }
    )


def _embedded(figure: Any, alt: str, caption: str) -> dict[str, str]:
    return {"png": figures.png_base64(figure), "alt": alt, "caption": caption}
