"""`cvsct profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.console import add_inputs, is_dry_run, report_error, report_note, report_result
from cvsct.core.errors import RefusedScansError, UsageError
from cvsct.core.files import refuse_missing, refuse_unwritable


def profile(
    scans: Annotated[
        Path | None, typer.Argument(help="Scans of one scanner: DICOM or NIfTI in any tree.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, ending in .profile (--show: a PNG).")
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Profiles to merge into --out; again for each."),
    ] = None,
    show: Annotated[
        str | None, typer.Option(metavar="FILE", help="Print a profile's card; --out plots it.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Is the scanner of SCANS still as this profile says?"),
    ] = None,
    max_slices: Annotated[int, typer.Option(min=1, help="Slices used in all.")] = 300,
    allow_few_patients: Annotated[
        bool,
        typer.Option("--allow-few-patients", help="Keep sums of one or two patients."),
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD", help="Accept what is refused: phantom, derived, mixed-scanners."
        ),
    ] = None,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Leave out series that must be refused.")
    ] = False,
) -> None:
    """Texture statistics of a scanner in a file, from which models are trained without its images.

    `cvsct train` takes such a file, or the name of a profile that comes with the package, for
    --source or --target.
    """
    from cvsct.api.profile import (
        compare_profile,
        fit_profile,
        load_profile,
        merge_profiles,
    )
    from cvsct.cli.progress import progress
    from cvsct.profile.card import profile_card
    from cvsct.profile.figure import plot_profile

    _check_task(scans, out, merge, show, compare)
    add_inputs(scans, *(merge or ()))
    if show is not None:
        shown = load_profile(show)
        if out is not None and not is_dry_run():
            plot_profile(shown, out)
        report_result(profile_card(shown).rstrip(), shown.to_json())
        return
    if compare is not None:
        constancy = compare_profile(
            compare, scans or Path(), allow=allow or (), progress=progress(), note=report_note
        )
        report_result(str(constancy), constancy.to_json())
        return
    target = None if is_dry_run() else out
    if merge:
        made = merge_profiles(merge, target, allow=allow or ())
    else:
        try:
            made = fit_profile(
                scans or Path(), target, max_slices=max_slices,
                allow_few_patients=allow_few_patients, allow=allow or (),
                skip_refused=skip_refused, progress=progress(), note=report_note,
            )  # fmt: skip
        except RefusedScansError as error:
            for reason in error.reasons[1:]:
                report_error(reason)
            raise
    written = f"\n{out}" if target else "\nnothing was written (--dry-run)"
    report_result(profile_card(made).rstrip() + written, made.to_json())


def _check_task(
    scans: Path | None,
    out: Path | None,
    merge: list[Path] | None,
    show: str | None,
    compare: str | None,
) -> None:
    """Refuse words that ask for no task, or for two.

    Raises:
        UsageError: saying what goes together.
    """
    if sum(x is not None for x in (merge, show, compare)) > 1 or (scans and (merge or show)):
        raise UsageError("give SCANS --out, --merge ... --out, --show, or SCANS --compare")
    if compare and scans is None:
        raise UsageError("--compare takes a profile; give the SCANS of today as well")
    if not (merge or show or compare) and scans is None:
        raise UsageError("give SCANS to measure, or --merge, --show or --compare")
    if compare and out is not None:
        raise UsageError("--compare writes nothing; leave --out away, or use --json")
    if show and out is not None and out.suffix != ".png":
        raise UsageError(f"{out}: --show plots into a file that ends in .png")
    if show and out is not None and out.exists():
        raise UsageError(f"{out}: exists; choose another name or delete it")
    if out is None and not (show or compare):
        raise UsageError("give the file to write: --out NAME.profile")
    refuse_missing(scans, *(merge or ()))
    if show and out is not None:
        refuse_unwritable(out)
