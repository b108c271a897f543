"""`cvsct features`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cvsct.cli.console import (
    EXIT_FAILED,
    EXIT_SOME_FAILED,
    add_inputs,
    is_dry_run,
    report_failures,
    report_line,
    report_note,
    report_result,
)
from cvsct.core.errors import UsageError
from cvsct.core.text import counted


def features(
    scans: Annotated[
        list[Path], typer.Argument(metavar="SCANS...", help="DICOM or NIfTI scans, any number.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; a killed run goes on there.")],
    masks: Annotated[
        list[Path] | None,
        typer.Option(help="Files or folders of masks: NIfTI, DICOM SEG, RTSTRUCT; again for more."),
    ] = None,
    structures: Annotated[
        list[str] | None,
        typer.Option(help="Of the masks only these, by name or pattern (GTV*); again for more."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER=NAME", help="Name of a number in NIfTI masks; again for more."
        ),
    ] = None,
    mask_pattern: Annotated[
        str,
        typer.Option(help="Paths of NIfTI masks by their scan, such as {patient}_*.nii.gz."),
    ] = "",
    settings: Annotated[
        Path | None, typer.Option(help="A PyRadiomics parameter file (YAML).")
    ] = None,
    binning: Annotated[
        Literal["ibsi", "pyradiomics"] | None,
        typer.Option(help="Gray levels; pyradiomics with --settings, else ibsi, if not given."),
    ] = None,
    dimensions: Annotated[
        int, typer.Option(min=2, max=3, help="3: whole regions; 2: the largest slice of each.")
    ] = 3,
    rois: Annotated[int, typer.Option(min=0, help="Soft-tissue blocks a scan, without masks.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Where those blocks lie.")] = 0,
    site: Annotated[
        Literal["auto", "institution", "folder"],
        typer.Option(help="Site label: Institution Name, or the first folder under SCANS."),
    ] = "auto",
    separate_sites: Annotated[
        bool, typer.Option("--separate-sites", help="One Patient ID at two sites is two patients.")
    ] = False,
    pseudonyms: Annotated[
        Path | None,
        typer.Option(help="Replace Patient IDs by hashes; the file holds their salt, or gets one."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
    cache: Annotated[
        bool, typer.Option(help="Keep features in the user's cache folder and use them again.")
    ] = True,
) -> None:
    """Measure radiomic features of every patient: features_wide.csv, features_long.csv.

    A row is a patient, study, region and stage: source, or harmonized where SCANS hold what
    `cvsct harmonize` wrote. What fails has a row with its reason.
    """
    from cvsct.api.features import check_features, extract_features
    from cvsct.cli.progress import progress

    add_inputs(*scans, *(masks or ()))
    options: dict[str, Any] = {
        "settings": settings, "binning": binning, "dimensions": dimensions,
        "structures": structures or (), "label_names": label_names(label or ()),
        "mask_pattern": mask_pattern, "rois": rois, "seed": seed, "site": site,
        "separate_sites": separate_sites, "pseudonyms": pseudonyms, "workers": workers,
        "cache": cache,
    }  # fmt: skip
    if is_dry_run():
        planned = check_features(scans, masks or (), report_note, **options)
        report_result(
            f"{planned['series']} series of {counted(planned['patients'], 'patient')}, "
            f"{planned['without_masks']} without masks; nothing was written (--dry-run)",
            {"out": str(out), "dry_run": True, **planned},
        )
        return
    table = extract_features(
        scans, masks or (), **options, out=out, progress=progress(), note=report_note
    )
    failed = f", {len(table.failed)} failed" if table.failed else ""
    report_result(
        f"{counted(len(table), 'row')} of {counted(len(table.features), 'feature')}{failed}\n"
        f"{out / 'features_wide.csv'}",
        {"out": str(out), "rows": len(table), "features": len(table.features),
         "failed": [row["error"] for row in table.failed],
         "settings_sha256": table.settings_sha256},
    )  # fmt: skip
    report_failures([(_message(row), ()) for row in table.failed])
    if table.failed:
        report_line(
            "note: the column error of features_wide.csv has each reason, series.csv each path; "
            "repair or remove what cannot be read, and the same command goes on"
        )
        sys.exit(EXIT_SOME_FAILED if len(table.failed) < len(table) else EXIT_FAILED)


def label_names(labels: tuple[str, ...] | list[str]) -> dict[str, str]:
    """Names of NIfTI labels by their numbers.

    Raises:
        UsageError: for text that is not NUMBER=NAME.
    """
    names = {}
    for label in labels:
        number, equals, name = label.partition("=")
        if not (equals and number.strip().isdigit() and name.strip()):
            raise UsageError(f"--label {label!r}: expected NUMBER=NAME, such as 1=lesion")
        names[str(int(number))] = name.strip()
    return names


def _message(row: Any) -> str:
    """Why a row has no features; the row is named by its region and stage, not by its patient."""
    region = f"{row['region']}, " if row["region"] else ""
    return f"{region}{row['stage']}: {row['error']}"
