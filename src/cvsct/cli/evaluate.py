"""`cvsct evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    harmonized: Annotated[Path, typer.Option(help="What `cvsct harmonize` wrote.")],
    target: Annotated[Path, typer.Option(help="Scans of scanner B to compare with.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    source: Annotated[Path | None, typer.Option(help="The scans before harmonisation.")] = None,
    rois: Annotated[int, typer.Option(min=3, help="Soft-tissue regions to take features of.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Where those regions lie.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
) -> None:
    """Measure how alike the scanners' images are, before and after: metrics.json, report.html."""
    from cvsct.evaluation.report import EvaluationSettings, evaluate, write_report
    from cvsct.io.dicom import read_all
    from cvsct.runs import Manifest, new_folder, refuse_existing
    from cvsct.terminal import progress

    refuse_existing(out)
    settings = EvaluationSettings(rois=rois, seed=seed, workers=workers)
    manifest = Manifest("evaluate", settings.model_dump(mode="json"))
    with manifest.timed("reading"):
        scans = {"harmonized": read_all(harmonized), "target": read_all(target)}
        if source is not None:
            scans["source"] = read_all(source)
    with manifest.timed("measuring"):
        found = evaluate(
            scans["harmonized"], scans["target"], scans.get("source"), settings, progress()
        )
    with new_folder(out) as folder:
        write_report(found, folder)
        manifest.inputs = {role: [v.series_uid for v in each] for role, each in scans.items()}
        manifest.figures = {"metrics": "metrics.json"}
        manifest.write(folder)
    print(found.summary())
    print(f"{out / 'report.html'}")
