"""The report's tables of images: their quality, physics and texture, and what guards said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cvsct.evaluation.evaluate import Evaluation
from cvsct.evaluation.guards import GuardRecord
from cvsct.evaluation.image.tissues import TISSUES
from cvsct.evaluation.report.cells import MISSING_CELL, figure, size, spread
from cvsct.evaluation.report.figures import LABELS
from cvsct.evaluation.table import Table

MAX_ROWS = 60
"""Maximum number of flagged slices that the report lists."""


def image_tables(evaluation: Evaluation) -> list[Table]:
    """Image quality, and what is left against the target by tissue."""
    sides = evaluation.compared
    if not sides:
        return []
    labels = tuple(LABELS[side] for side in sides)
    quality = [one.quality for one in sides.values()]
    found = evaluation.physics
    left = [found.residuals[side] for side in sides]
    rows = [("body", *(size(one.body) for one in left))]
    rows += [(tissue, *(size(one.tissues[tissue]) for one in left)) for tissue in TISSUES]
    return [
        Table(
            "quality",
            "Image quality",
            f"Mean ± sd over n = {evaluation.n_slices} slices",
            ("Figure", *labels),
            (
                ("PSNR (dB)", *(spread(one.psnr_db, 1) for one in quality)),
                ("SSIM", *(spread(one.ssim, 3) for one in quality)),
                ("NCC", *(spread(one.ncc, 4) for one in quality)),
                ("soft-tissue bias (HU)", *(figure(one.hu_bias, "+.1f") for one in quality)),
            ),
        ),
        Table(
            "residuals",
            "Residuals",
            "Difference from the target in HU: mean absolute; 95th percentile; share beyond 50 HU",
            ("Where the target shows", *labels),
            tuple(rows),
        ),
    ]


def physics_tables(evaluation: Evaluation) -> list[Table]:
    """Noise, resolution, CT numbers, places, lesions: one row a question."""
    found = evaluation.physics
    tables = [_sides_table(evaluation), _bias_table(evaluation), _nodule_table(evaluation)]
    if found.idempotence is not None:
        change = found.idempotence.change
        rows = [
            (
                tissue,
                figure(left.mean_abs_hu if left else None, ".2f"),
                figure(found.idempotence.bias[tissue].mean_hu, "+.2f"),
            )
            for tissue, left in change.tissues.items()
        ]
        gain = found.idempotence.gain_db
        tables.append(
            Table(
                "idempotence",
                "Target harmonized: the target's own images put through the model",
                "They need nothing done: the change should be small",
                ("Tissue", "mean absolute change (HU)", "bias (HU)"),
                tuple(rows),
                footnotes=(f"Texture power changes by {figure(gain, '+.1f')} dB.",),
            )
        )
    return [table for table in tables if table is not None]


def _sides_table(evaluation: Evaluation) -> Table | None:
    found = evaluation.physics
    sides = list(evaluation.scanners)
    lines: list[tuple[str, Callable[[str], str]]] = [
        ("noise (HU)", lambda s: _of(found.noise, s, lambda o: o.power.sd_hu, ".1f")),
        (
            "noise, mean frequency (1/mm)",
            lambda s: _of(found.noise, s, lambda o: o.mean_per_mm, ".3f"),
        ),
        (
            "noise power, distance from target (dB)",
            lambda s: _of(found.noise, s, lambda o: o.distance_db, ".1f"),
        ),
        *(
            (
                f"{kind} edges, 50 % transfer (1/mm)",
                lambda s, some=some: _of(some, s, lambda o: o.transfer.mtf50_per_mm, ".3f"),
            )
            for kind, some in found.edges.items()
        ),
        ("shift from target (px)", lambda s: _of(found.shift, s, lambda o: o.length_px, ".2f")),
        (
            "step between slices, over target's",
            lambda s: _of(found.consistency, s, lambda o: o.step_over_target, ".2f"),
        ),
        (
            "noise correlation of neighboring slices",
            lambda s: _of(found.consistency, s, lambda o: o.noise_correlation, "+.2f"),
        ),
        (
            "told from the target by features (chance 50 %)",
            lambda s: _of(found.identification, s, lambda o: o.accuracy, ".0%"),
        ),
    ]
    rows = [(name, *(cell(side) for side in sides)) for name, cell in lines]
    rows = [row for row in rows if set(row[1:]) != {MISSING_CELL}]
    if not rows:
        return None
    moved = found.shift.get("moved")
    footnotes = [f"Harmonizing moved images by {moved.length_px:.2f} px."] if moved else []
    flicker = found.consistency.get("harmonized")
    if flicker and flicker.flicker_hu is not None:
        footnotes.append(
            f"What it added differs by {flicker.flicker_hu:.1f} HU from slice to slice."
        )
    return Table(
        "sides",
        "Noise, resolution, place",
        "Measured in the same places of every side where they show one body",
        ("Figure", *(LABELS[side] for side in sides)),
        tuple(rows),
        footnotes=tuple(footnotes),
    )


def _bias_table(evaluation: Evaluation) -> Table | None:
    found = evaluation.physics
    if not found.bias:
        return None
    first = next(iter(found.bias.values()))
    rows = [
        (
            tissue,
            f"{first[tissue].n_pixels:,}",
            *(
                f"{figure(one.mean_hu, '+.1f')}; {figure(one.local_p95_hu, '.1f')}"
                if one.n_pixels
                else MISSING_CELL
                for one in (each[tissue] for each in found.bias.values())
            ),
        )
        for tissue in TISSUES
    ]
    return Table(
        "bias",
        "CT numbers",
        "Bias against the target in HU: mean; 95th percentile of the absolute bias after a blur of "
        "8 px",
        ("Tissue", "pixels", *(LABELS[side] for side in found.bias)),
        tuple(rows),
    )


def _nodule_table(evaluation: Evaluation) -> Table | None:
    nodules = evaluation.physics.nodules
    if nodules is None or not any(one.seen for one in nodules.summary.values()):
        return None
    sides = nodules.summary
    return Table(
        "nodules",
        "Nodules against the phantom's truth",
        "Median absolute errors over nodules that are told on every side",
        ("Figure", *(LABELS[side] for side in sides)),
        (
            ("seen; measured", *(f"{one.seen}; {one.measured}" for one in sides.values())),
            ("CT number (HU)", *(figure(one.hu_error, ".0f") for one in sides.values())),
            ("diameter (mm)", *(figure(one.diameter_error_mm, ".2f") for one in sides.values())),
            ("volume", *(figure(one.volume_error, ".1%") for one in sides.values())),
            ("excess over the truth's", *(figure(o.excess_share, ".2f") for o in sides.values())),
        ),
    )


def texture_table(evaluation: Evaluation) -> Table:
    """Spectral distance and mean soft tissue, side by side."""
    distance = evaluation.texture.distance_db if evaluation.texture else {}
    sides = list(evaluation.scanners)
    return Table(
        "texture",
        "Texture and CT number",
        "Each side's own soft tissue",
        ("Figure", *(LABELS[side] for side in sides)),
        (
            (
                "spectral distance to target (dB)",
                *(figure(distance.get(side), ".1f") for side in sides),
            ),
            (
                "mean soft tissue (HU)",
                *(figure(evaluation.soft_tissue_hu[side], ".1f") for side in sides),
            ),
        ),
    )


def guard_tables(guards: Sequence[GuardRecord]) -> list[Table]:
    """A row a series, and a row for each flagged slice; no table where nothing is known."""
    if not guards:
        return []
    tables = [
        Table(
            "guards",
            "What the model's guards said",
            "Position: 1 reads like the model's source, 0 like its target",
            ("Series", "scan", "position", "unlike the source's by", "slices judged", "flagged"),
            tuple(
                (
                    each.series,
                    each.scan.replace("_", " ") or MISSING_CELL,
                    figure(each.position, ".2f"),
                    "; ".join(each.exceeded) or MISSING_CELL,
                    MISSING_CELL if each.judged is None else str(each.judged),
                    str(len(each.flagged)),
                )
                for each in guards
            ),
        )
    ]
    flagged = [(each.series, one) for each in guards for one in each.flagged]
    if flagged:
        shown = flagged[:MAX_ROWS]
        tables.append(
            Table(
                "flagged",
                "Slices that were changed too much",
                f"{len(shown)} of {len(flagged)} flagged slices",
                ("Series", "slice", "z (mm)", "beyond the model's limits"),
                tuple((name, str(o.slice), f"{o.z_mm:.1f}", o.why) for name, o in shown),
            )
        )
    return tables


def _of(found: Mapping[str, Any], side: str, look: Callable[[Any], Any], digits: str) -> str:
    return figure(look(found[side]), digits) if side in found else MISSING_CELL
