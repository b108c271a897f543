"""The report as one HTML file that needs nothing from the network."""

from __future__ import annotations

import importlib.resources
from typing import Any

from cvsct import __version__
from cvsct.evaluation import figures
from cvsct.evaluation.concordance import ClassAgreement
from cvsct.evaluation.metrics import Spread, load_extra
from cvsct.evaluation.pairing import SharedSlices
from cvsct.evaluation.radiomics import CLASSES
from cvsct.evaluation.study import Comparison, Evaluation
from cvsct.evaluation.verdict import verdict


def report_html(evaluation: Evaluation) -> str:
    """Fill the template: verdict first, then tables, figures and how they were computed."""
    jinja = load_extra("jinja2")
    text = importlib.resources.files(__package__).joinpath("report.html.j2").read_text("utf-8")
    environment = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined)
    page: str = environment.from_string(text).render(
        verdict=verdict(evaluation),
        notes=evaluation.notes,
        scanners=[(figures.LABELS[side], scanner) for side, scanner in evaluation.scanners.items()],
        tables=_tables(evaluation),
        figures=_figures(evaluation),
        settings=evaluation.settings,
        extraction=evaluation.extraction,
        version=__version__,
    )
    return page


def _compared(evaluation: Evaluation) -> dict[str, Comparison]:
    sides = {"source": evaluation.input, "harmonized": evaluation.harmonized}
    return {side: one for side, one in sides.items() if one is not None}


def _tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    sides = _compared(evaluation)
    labels = [figures.LABELS[side] for side in sides]
    tables = []
    if sides:
        across = {side: one.across for side, one in sides.items()}
        regions = f"n = {len(evaluation.regions)} regions"
        rows = [
            [name, *(_interval_text(one.classes[name]) for one in across.values())]
            for name in CLASSES
        ]
        rows.append(["mean of classes", *(_interval_text(one.mean) for one in across.values())])
        tables.append(
            {
                "title": "Do features agree?",
                "caption": f"Concordance across regions, 95 % interval; {regions}",
                "columns": labels,
                "rows": rows,
            }
        )
        tables.append(
            {
                "title": "The paper's reading",
                "caption": f"Concordance within regions, mean ± sd; {regions}",
                "columns": labels,
                "rows": [
                    [name, *(_spread_text(one.within[name], 2) for one in sides.values())]
                    for name in CLASSES
                ],
            }
        )
        quality = [one.quality for one in sides.values()]
        tables.append(
            {
                "title": "Do images agree?",
                "caption": f"Mean ± sd over n = {evaluation.n_slices} slices",
                "columns": labels,
                "rows": [
                    ["PSNR (dB)", *(_spread_text(one.psnr_db, 1) for one in quality)],
                    ["SSIM", *(_spread_text(one.ssim, 3) for one in quality)],
                    ["NCC", *(_spread_text(one.ncc, 4) for one in quality)],
                    ["soft-tissue bias (HU)", *(_signed(one.hu_bias) for one in quality)],
                ],
            }
        )
    distance = evaluation.texture.distance_db if evaluation.texture else {}
    tables.append(
        {
            "title": "Texture and CT number",
            "caption": "Each side's own soft tissue",
            "columns": [figures.LABELS[side] for side in evaluation.scanners],
            "rows": [
                [
                    "spectral distance to target (dB)",
                    *(_number(distance.get(side)) for side in evaluation.scanners),
                ],
                [
                    "mean soft tissue (HU)",
                    *(_number(evaluation.soft_tissue_hu[side]) for side in evaluation.scanners),
                ],
            ],
        }
    )
    return tables


def _figures(evaluation: Evaluation) -> list[dict[str, str]]:
    drawn = []
    sides = _compared(evaluation)
    if sides:
        figure = figures.new_figure(6.5, 3.4)
        classes = {side: one.across.classes for side, one in sides.items()}
        figures.draw_concordance(figure.subplots(), classes)
        drawn.append(
            _embedded(
                figure,
                "Concordance by feature class",
                f"Concordance over n = {len(evaluation.regions)} regions, 95 % intervals.",
            )
        )
    examples = _examples(evaluation)
    if examples:
        low, high = figures.SOFT_TISSUE_WINDOW_HU
        n_shared = sum(len(one.harmonized.hu) for one in evaluation.shared)
        drawn.append(
            _embedded(
                figures.slice_rows(examples),
                "Example slices and residuals",
                f"n = {len(examples)} of {n_shared} slices. Images: {low:g} to "
                f"{high:g} HU. Differences: blue −{figures.RESIDUAL_HU:g} to red "
                f"+{figures.RESIDUAL_HU:g} HU.",
            )
        )
    if evaluation.texture:
        figure = figures.new_figure(6.5, 3.6)
        figures.draw_spectra(figure.subplots(), evaluation.texture)
        drawn.append(_embedded(figure, "Texture power spectra", "Soft-tissue texture power."))
    return drawn


def _examples(evaluation: Evaluation) -> list[tuple[SharedSlices, int]]:
    """Slices to show, evenly spaced through all that are shared."""
    places = [(one, i) for one in evaluation.shared for i in range(len(one.harmonized.hu))]
    count = min(evaluation.settings.examples, len(places))
    return [places[(2 * k + 1) * len(places) // (2 * count)] for k in range(count)]


def _embedded(figure: Any, alt: str, caption: str) -> dict[str, str]:
    return {"png": figures.png_base64(figure), "alt": alt, "caption": caption}


def _interval_text(one: ClassAgreement) -> str:
    if one.ccc is None:
        return "undefined"
    interval = "" if one.low is None else f" ({one.low:.2f} to {one.high:.2f})"
    left_out = f"; {one.undefined} left out" if one.undefined else ""
    return f"{one.ccc:.2f}{interval}{left_out}"


def _spread_text(one: Spread | None, digits: int) -> str:
    return "undefined" if one is None else f"{one.mean:.{digits}f} ± {one.sd:.{digits}f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"
