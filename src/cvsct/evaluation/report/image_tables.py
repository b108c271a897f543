"""The report's tables of image quality, physics, texture and the findings of the guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cvsct.evaluation.guards import GuardRecord
from cvsct.evaluation.image.densitometry import Densitometry
from cvsct.evaluation.image.tissues import TISSUES
from cvsct.evaluation.report.cells import MISSING_CELL, number_cell, residual_cell, spread_cell
from cvsct.evaluation.report.figures import LABELS
from cvsct.evaluation.result import Evaluation
from cvsct.evaluation.table import Table
from cvsct.evaluation.told_uncertainty import UncertaintyRecord

MAX_ROWS = 60
"""Maximum number of flagged slices that the report lists."""


def image_tables(evaluation: Evaluation) -> list[Table]:
    """Tables of image quality and residuals; none in an unpaired evaluation."""
    sides = evaluation.compared
    if not sides:
        return []
    labels = tuple(LABELS[side] for side in sides)
    quality = [comparison.quality for comparison in sides.values()]
    residuals = [evaluation.physics.residuals[side] for side in sides]
    rows = [("body", *(residual_cell(r.body) for r in residuals))]
    rows += [(t, *(residual_cell(r.tissues[t]) for r in residuals)) for t in TISSUES]
    return [
        Table(
            "quality",
            "Image quality",
            f"Mean ± sd over n = {evaluation.n_slices} slices",
            ("Figure", *labels),
            (
                ("PSNR (dB)", *(spread_cell(q.psnr_db, 1) for q in quality)),
                ("SSIM", *(spread_cell(q.ssim, 3) for q in quality)),
                ("NCC", *(spread_cell(q.ncc, 4) for q in quality)),
                ("soft-tissue bias (HU)", *(number_cell(q.hu_bias, "+.1f") for q in quality)),
            ),
        ),
        Table(
            "residuals",
            "Residuals",
            "Difference from the target in HU: mean absolute; 95th percentile; share beyond 50 HU",
            ("Tissue in the target", *labels),
            tuple(rows),
        ),
    ]


def physics_tables(evaluation: Evaluation) -> list[Table]:
    """Tables of noise, resolution, positions, CT numbers, nodules and the target harmonized."""
    idempotence = evaluation.physics.idempotence
    tables = [
        _sides_table(evaluation),
        _density_table(evaluation),
        _bias_table(evaluation),
        _nodule_table(evaluation),
    ]
    if idempotence is not None:
        rows = [
            (
                tissue,
                number_cell(change.mean_abs_hu if change else None, ".2f"),
                number_cell(idempotence.bias[tissue].mean_hu, "+.2f"),
            )
            for tissue, change in idempotence.change.tissues.items()
        ]
        tables.append(
            Table(
                "idempotence",
                "Target harmonized: the target's own images put through the model",
                "They need no harmonization: the change should be small",
                ("Tissue", "mean absolute change (HU)", "bias (HU)"),
                tuple(rows),
                footnotes=(
                    f"Texture power changes by {number_cell(idempotence.gain_db, '+.1f')} dB.",
                ),
            )
        )
    return [table for table in tables if table is not None]


def _sides_table(evaluation: Evaluation) -> Table | None:
    """Table of the figures that every side has by itself; None where nothing was measured."""
    physics = evaluation.physics
    sides = list(evaluation.scanners)
    lines: list[tuple[str, Callable[[str], str]]] = [
        (
            "noise, whole standard deviation (HU)",
            lambda s: _side_cell(physics.noise, s, lambda o: o.power.sd_hu, ".1f"),
        ),
        (
            "noise without the two lowest rings of frequencies (HU)",
            lambda s: _side_cell(physics.noise, s, lambda o: o.level.value, ".1f"),
        ),
        (
            "noise, mean frequency (1/mm)",
            lambda s: _side_cell(physics.noise, s, lambda o: o.mean_per_mm, ".3f"),
        ),
        (
            "noise power, distance from target (dB)",
            lambda s: _side_cell(physics.noise, s, lambda o: o.distance_db, ".1f"),
        ),
        *(
            (
                f"{kind} edges, 50 % transfer (1/mm)",
                lambda s, by_side=by_side: _side_cell(
                    by_side, s, lambda o: o.transfer.mtf50_per_mm, ".3f"
                ),
            )
            for kind, by_side in physics.edges.items()
        ),
        (
            "shift from target (px)",
            lambda s: _side_cell(physics.shift, s, lambda o: o.length_px, ".2f"),
        ),
        (
            "step between slices, as a multiple of the target's",
            lambda s: _side_cell(physics.consistency, s, lambda o: o.step_over_target, ".2f"),
        ),
        (
            "noise correlation of neighboring slices",
            lambda s: _side_cell(physics.consistency, s, lambda o: o.noise_correlation, "+.2f"),
        ),
        (
            "distinguished from the target by features (chance 50 %)",
            lambda s: _side_cell(physics.identification, s, lambda o: o.accuracy, ".0%"),
        ),
    ]
    rows = [(name, *(cell(side) for side in sides)) for name, cell in lines]
    rows = [row for row in rows if set(row[1:]) != {MISSING_CELL}]
    if not rows:
        return None
    moved = physics.shift.get("moved")
    footnotes = [f"Harmonization moved images by {moved.length_px:.2f} px."] if moved else []
    flicker = physics.consistency.get("harmonized")
    if flicker and flicker.flicker_hu is not None:
        footnotes.append(
            f"What harmonization added differs by {flicker.flicker_hu:.1f} HU from slice to slice."
        )
    return Table(
        "sides",
        "Noise, resolution, position",
        "Measured at the same places of all sides that show one body",
        ("Figure", *(LABELS[side] for side in sides)),
        tuple(rows),
        footnotes=tuple(footnotes),
    )


def _density_table(evaluation: Evaluation) -> Table | None:
    """Table of lung densitometry with thickness and noise; None where nothing was measured."""
    physics = evaluation.physics
    sides = [side for side in evaluation.scanners if side in physics.densitometry]
    if not sides:
        return None
    measured = physics.densitometry

    def row(name: str, figure: str, spec: str) -> tuple[str, ...]:
        cells = []
        for side in sides:
            value = measured[side].mean(figure)
            difference = measured[side].difference.get(figure)
            shown = number_cell(value, spec) if value is not None else "not applicable"
            cells.append(
                f"{shown} (off by {difference:{spec}})" if difference is not None else shown
            )
        return (name, *cells)

    reasons = {f"{LABELS[side]}: {measured[side].why_none}" for side in sides}
    return Table(
        "densitometry",
        "Lung densitometry",
        "Means over series; in brackets the mean absolute difference from the target's series. "
        "Figures of other thickness or noise cannot be compared",
        ("Figure", *(LABELS[side] for side in sides)),
        (
            row("low attenuation, LAA-950 (%)", "laa950_percent", ".1f"),
            row("15th percentile (HU)", "perc15_hu", ".0f"),
            row("mean lung density (HU)", "mean_hu", ".0f"),
            (
                "slice thickness (mm)",
                *(number_cell(_thickness_mm(measured[s]), "g") for s in sides),
            ),
            (
                "noise of soft tissue, whole standard deviation (HU)",
                *(_side_cell(physics.noise, s, lambda o: o.power.sd_hu, ".1f") for s in sides),
            ),
        ),
        footnotes=tuple(sorted(f"{r}." for r in reasons if not r.endswith(": "))),
    )


def _thickness_mm(density: Densitometry) -> float | None:
    """Mean slice thickness of a side's series; None where it is unknown."""
    known = [one.thickness_mm for one in density.series if one.thickness_mm > 0]
    return float(np.mean(known)) if known else None


def _bias_table(evaluation: Evaluation) -> Table | None:
    """Table of the bias of CT numbers by tissue; None in an unpaired evaluation."""
    bias_of_sides = evaluation.physics.bias
    if not bias_of_sides:
        return None
    first = next(iter(bias_of_sides.values()))
    rows = [
        (
            tissue,
            f"{first[tissue].n_pixels:,}",
            *(
                f"{number_cell(bias.mean_hu, '+.1f')}; {number_cell(bias.local_p95_hu, '.1f')}"
                if bias.n_pixels
                else MISSING_CELL
                for bias in (by_tissue[tissue] for by_tissue in bias_of_sides.values())
            ),
        )
        for tissue in TISSUES
    ]
    return Table(
        "bias",
        "CT numbers",
        "Bias against the target in HU: mean; 95th percentile of the absolute bias after a blur of "
        "8 px",
        ("Tissue", "pixels", *(LABELS[side] for side in bias_of_sides)),
        tuple(rows),
    )


def _nodule_table(evaluation: Evaluation) -> Table | None:
    """Table of the errors of nodules; None where no true nodules are given or visible."""
    nodules = evaluation.physics.nodules
    if nodules is None or not any(summary.seen for summary in nodules.summary.values()):
        return None
    sides, errors = nodules.summary, list(nodules.summary.values())
    return Table(
        "nodules",
        "Nodules against the phantom's truth",
        "Median absolute errors over nodules that are measured on every side",
        ("Figure", *(LABELS[side] for side in sides)),
        (
            ("in the images; measured", *(f"{e.seen}; {e.measured}" for e in errors)),
            ("CT number (HU)", *(number_cell(e.hu_error, ".0f") for e in errors)),
            ("diameter (mm)", *(number_cell(e.diameter_error_mm, ".2f") for e in errors)),
            ("volume", *(number_cell(e.volume_error, ".1%") for e in errors)),
            ("excess over the true one", *(number_cell(e.excess_share, ".2f") for e in errors)),
        ),
    )


def texture_table(evaluation: Evaluation) -> Table:
    """Table of the spectral distance and the mean HU of soft tissue of each side."""
    distance = evaluation.texture.distance_db if evaluation.texture else {}
    sides = list(evaluation.scanners)
    return Table(
        "texture",
        "Texture and CT number",
        "In the soft tissue of each side",
        ("Figure", *(LABELS[side] for side in sides)),
        (
            (
                "spectral distance to target (dB)",
                *(number_cell(distance.get(side), ".1f") for side in sides),
            ),
            (
                "mean soft tissue (HU)",
                *(number_cell(evaluation.soft_tissue_hu[side], ".1f") for side in sides),
            ),
        ),
    )


def guard_tables(guards: Sequence[GuardRecord]) -> list[Table]:
    """Tables of the guarded series and of the flagged slices; none where nothing is known."""
    if not guards:
        return []
    tables = [
        Table(
            "guards",
            "Findings of the model's guards",
            "Position: 1 is texture like the model's source, 0 like its target",
            ("Series", "scan", "position", "limits exceeded", "slices judged", "flagged"),
            tuple(
                (
                    record.series,
                    record.scan.replace("_", " ") or MISSING_CELL,
                    number_cell(record.position, ".2f"),
                    "; ".join(record.exceeded) or MISSING_CELL,
                    MISSING_CELL if record.judged is None else str(record.judged),
                    str(len(record.flagged)),
                )
                for record in guards
            ),
        )
    ]
    flagged = [(record.series, flagged) for record in guards for flagged in record.flagged]
    if flagged:
        shown = flagged[:MAX_ROWS]
        tables.append(
            Table(
                "flagged",
                "Slices that were changed too much",
                f"{len(shown)} of {len(flagged)} flagged slices",
                ("Series", "slice", "z (mm)", "limits exceeded"),
                tuple((name, str(s.slice), f"{s.z_mm:.1f}", s.why) for name, s in shown),
            )
        )
    return tables


def uncertainty_tables(records: Sequence[UncertaintyRecord]) -> list[Table]:
    """Table of the standard errors of each harmonized series; none where none are known."""
    if not records:
        return []
    return [
        Table(
            "uncertainty",
            "How uncertain harmonized images are",
            "Standard errors, medians over slices: of each voxel by the model's fit and by noise "
            "that was added; of the tissue's mean CT number and noise level, with what the method "
            "cannot do. Noise of the scan itself is not in them",
            ("Series", "tissue", "slices", "voxel, fit (HU)", "voxel, added noise (HU)",
             "mean (HU)", "noise level (%)"),
            tuple(
                (record.series, record.tissue, str(record.slices), f"{record.fit_hu:.1f}",
                 f"{record.synthesis_hu:.1f}", f"{record.mean_hu:.2f}",
                 f"{record.noise_percent:.1f}")
                for record in records
            ),
        )
    ]  # fmt: skip


def _side_cell(
    by_side: Mapping[str, Any], side: str, figure: Callable[[Any], Any], spec: str
) -> str:
    """Cell of a side's figure in a format, where the side was measured."""
    return number_cell(figure(by_side[side]), spec) if side in by_side else MISSING_CELL
