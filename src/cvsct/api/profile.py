"""Profiles of scanners: measured from scans, merged, read, and compared with a scanner of today."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvsct.api.training_scans import admit_scans
from cvsct.core.errors import ProfileError, UsageError
from cvsct.core.files import refuse_existing, refuse_missing, refuse_unwritable
from cvsct.core.kinds import (
    PATH,
    PATH_WORDS,
    refuse_given_no_path,
    refuse_no_path,
    refuse_other_kind,
    refuse_other_kinds_in,
)
from cvsct.core.progress import Note, Progress, log_note, no_note, silent
from cvsct.core.settings import refuse_outside
from cvsct.core.text import counted, did_you_mean
from cvsct.guard.input_check import vendor
from cvsct.guard.training_set import MIXED, parse_allowed
from cvsct.model.pretrained import ROOT
from cvsct.profile.compare import Constancy, compare_profiles
from cvsct.profile.file import SUFFIX, is_profile, read_profile, with_digest, write_profile
from cvsct.profile.privacy import MIN_PATIENTS
from cvsct.profile.profile import MAX_SLICES, ScannerProfile, measure_profile, named

__all__ = [
    "ScannerProfile",
    "bundled_profiles",
    "compare_profile",
    "fit_profile",
    "load_profile",
    "merge_profiles",
    "open_side",
]

SIDE = (ScannerProfile, *PATH)
"""Kinds of a side of a training."""
SIDE_WORDS = f"{PATH_WORDS}, or a ScannerProfile; training reads its scans from disk"

LEAST_KEPT = 0.9
"""Share of patches from which on nothing is said of those that are left out."""


def fit_profile(
    scans: Path | str,
    out: Path | str | None = None,
    *,
    max_slices: int = MAX_SLICES,
    allow_few_patients: bool = False,
    allow: Sequence[str] = (),
    skip_refused: bool = False,
    progress: Progress = silent,
    note: Note = log_note,
) -> ScannerProfile:
    """Measure the profile of a scanner: texture statistics of its scans, without any image.

    No sum, and no difference of two, stands for fewer than 30 patches or three patients: strata of
    few are added to their neighbors, and a note says how many patches are lost where it is many.

    Args:
        scans: scans of one scanner, DICOM or NIfTI in any tree of folders.
        out: file to write, ending in `.profile`; None writes none.
        max_slices: slices used in all, spread evenly over the scans.
        allow_few_patients: keep sums of one or two patients too; the card says so first.
        allow: scans to accept that are refused otherwise: `phantom`, `derived`, `mixed-scanners`.
        skip_refused: leave out series that cannot be used, instead of refusing all.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read.

    Returns:
        The `ScannerProfile`: `n_patients`, `n_slices`, `scanner`, and what `train` takes for a
        side.

    Raises:
        UsageError: if an option does not exist, or `out` does not end in `.profile` or exists.
        RefusedScansError: if scans cannot be used; `reasons` has one line for each.
        ProfileError: if fewer than three patients are there and that is not allowed.

    Example:
        >>> profile = cvsct.fit_profile(scans_of_a, allow_few_patients=True)
        >>> profile.n_patients, profile.few_patients
        (1, True)
    """
    refuse_no_path("a profile is measured of scans on disk", scans=scans)
    source = Path(scans)
    refuse_missing(source)
    path = _new_file(out)
    refuse_outside(1, max_slices=max_slices)
    admitted = admit_scans(
        {"scans": source}, allow, skip_refused, progress, note, (note, no_note)
    ).scans["scans"]
    if any(not named(scan) for scan in admitted.facts):
        note("scans that name no patient count as one patient together")
    if not allow_few_patients:
        _refuse_few(len({named(scan) for scan in admitted.facts}))
    whole = measure_profile(admitted, max_slices, progress)
    if not allow_few_patients:
        _refuse_few(whole.n_patients)  # of many scans not all are measured
    profile = whole.shareable(allow_few_patients)
    kept = profile.share_kept(whole)
    if profile.texture.n_body == 0:
        raise ProfileError(
            f"the scans hold {whole.texture.n_body} regions inside patients, too few for any sum "
            "that may be shared; give more slices of the trunk, or more patients"
        )
    if kept < LEAST_KEPT:
        note(
            f"{1 - kept:.0%} of the patches are left out, for too few patches or patients stand "
            "behind their sums; more scans would keep them"
        )
    return with_digest(profile) if path is None else write_profile(profile, path)


def _refuse_few(n_patients: int) -> None:
    """Refuse scans of one or two patients.

    Raises:
        ProfileError: saying how many are needed.
    """
    if n_patients < MIN_PATIENTS:
        raise ProfileError(
            f"the scans are of {counted(n_patients, 'patient')}, of {MIN_PATIENTS} needed, so that "
            "none can be recognized; give more, or use --allow-few-patients for a profile that is "
            "not shared"
        )


def load_profile(profile: Path | str) -> ScannerProfile:
    """Read a profile from a file, or one that comes with the package by its name.

    Args:
        profile: path of a file that `fit_profile` wrote, or a name of `bundled_profiles`.

    Raises:
        ProfileError: if there is none, or it is damaged or of another version.

    Example:
        >>> cvsct.load_profile("siemens-br40-3mm").scanner
        'SIEMENS SOMATOM Force, kernel Br40, 120 kVp'
    """
    refuse_no_path("or a name of a profile that comes with the package", profile=profile)
    path = Path(profile)
    names = bundled_profiles()
    if not path.exists() and str(path) in names:
        return read_profile(ROOT / f"{path}{SUFFIX}")
    if not path.exists():
        raise ProfileError(
            f"{path}: no such profile; {did_you_mean(str(path), names)}give a file that "
            f"`cvsct profile` wrote, or one of {', '.join(names)}"
        )
    return read_profile(path)


def bundled_profiles() -> tuple[str, ...]:
    """Names of the profiles of simulated scanners that come with the package."""
    return tuple(sorted(path.stem for path in ROOT.glob(f"*{SUFFIX}")))


def merge_profiles(
    profiles: Sequence[ScannerProfile | Path | str],
    out: Path | str | None = None,
    *,
    allow: Sequence[str] = (),
) -> ScannerProfile:
    """Merge profiles of one scanner whose patients differ, by adding their sums.

    That no patient is in two of them is for the caller to know.

    Args:
        profiles: at least two profiles or their files.
        out: file to write, ending in `.profile`; None writes none.
        allow: `mixed-scanners` merges profiles of several manufacturers.

    Raises:
        UsageError: for fewer than two profiles, the same one twice, several manufacturers, or a
            file that exists.
        ProfileError: if one cannot be read.

    Example:
        >>> morning = cvsct.fit_profile(scans_of_a, allow_few_patients=True)
        >>> evening = cvsct.fit_profile(scans_of_b, allow_few_patients=True)
        >>> cvsct.merge_profiles([morning, evening]).n_slices
        12
    """
    if isinstance(profiles, str | Path):
        raise UsageError(f"{profiles}: one profile; give a list of at least two to merge")
    given = refuse_other_kinds_in(SIDE, f"a ScannerProfile, or {PATH_WORDS}", profiles, "profiles")
    parts = [part if isinstance(part, ScannerProfile) else load_profile(part) for part in given]
    path = _new_file(out)
    if len(parts) < 2:
        raise UsageError("give at least two profiles to merge")
    if len({with_digest(part).sha256 for part in parts}) < len(parts):
        raise UsageError("one profile was given twice; its patients would count twice")
    makers = {vendor(a.manufacturer) for part in parts for a in part.acquisitions} - {""}
    if len(makers) > 1 and MIXED not in parse_allowed(allow):
        raise UsageError(
            f"the profiles are of {len(makers)} manufacturers ({', '.join(sorted(makers))}): a "
            f"model would learn the mean of them; give those of one, or --allow {MIXED}"
        )
    first, *others = parts
    merged = sum(others, first)
    return with_digest(merged) if path is None else write_profile(merged, path)


def compare_profile(
    profile: ScannerProfile | Path | str,
    scans: ScannerProfile | Path | str,
    *,
    allow: Sequence[str] = (),
    progress: Progress = silent,
    note: Note = log_note,
) -> Constancy:
    """Compare a scanner of today with its profile, to see whether it is as it was.

    Args:
        profile: the earlier profile.
        scans: scans of today, or their profile; of other patients.
        allow: scans to accept that are refused otherwise, as in `fit_profile`.

    Returns:
        The `Constancy`: `is_constant`, `figures`, `to_json()`. `is_constant` is None where one
        side has fewer than eight patients, or the bodies are unlike.

    Raises:
        ProfileError: if a profile cannot be read, or the two share too little tissue.
        RefusedScansError: if scans cannot be used.

    Example:
        >>> profile = cvsct.fit_profile(scans_of_a, allow_few_patients=True)
        >>> constancy = cvsct.compare_profile(profile, scans_of_b)
        >>> constancy.is_constant, constancy.untold
        (None, ('1 patient in the profile and 1 today, of 8 needed on each side; measure more',))
    """
    refuse_other_kind(SIDE, f"a ScannerProfile, or {PATH_WORDS}", profile=profile, scans=scans)
    then = profile if isinstance(profile, ScannerProfile) else load_profile(profile)
    now = open_side(scans)
    if isinstance(now, ScannerProfile):
        return compare_profiles(then, now)
    if not now.exists():
        raise UsageError(f"{now}: no such file or folder")
    admitted = admit_scans({"scans": now}, allow, False, progress, note, None)
    return compare_profiles(then, measure_profile(admitted.scans["scans"], progress=progress))


def open_side(side: Path | str | ScannerProfile) -> Path | ScannerProfile:
    """A side of a training: a path of scans, or a profile, read where its file or name is given.

    Raises:
        ProfileError: if a profile cannot be read.
    """
    if isinstance(side, ScannerProfile):
        return side
    path = Path(side)
    is_name = not path.exists() and str(side) in bundled_profiles()
    return load_profile(path) if is_profile(path) or is_name else path


def _new_file(out: Path | str | None) -> Path | None:
    """Path of a profile to write.

    Raises:
        UsageError: if it has another ending, or something is there.
    """
    refuse_given_no_path(out=out)
    if out is None:
        return None
    path = Path(out)
    if not is_profile(path):
        raise UsageError(f"{path}: a profile's name ends in {SUFFIX}")
    if path.exists():
        refuse_existing(path)
    refuse_unwritable(path)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: its folder does not exist; make it first")
    return path
