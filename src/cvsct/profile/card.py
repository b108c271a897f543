"""The card of a profile: what a data officer reads before the file leaves a hospital."""

from __future__ import annotations

from cvsct.core.text import columns
from cvsct.profile.privacy import MIN_PATCHES, MIN_PATIENTS
from cvsct.profile.profile import ScannerProfile

FEW = (
    "CONTAINS SUMS OF FEWER THAN 3 PATIENTS (--allow-few-patients): a single patient can be "
    "recognized in it. Do not share it outside your institution.\n\n"
)
"""First line of the card of a profile with sums of few patients."""

PRIVACY = """\
Aggregate statistics of images: counts, sums and sums of products over patches of tissue, by
stratum and spatial frequency. No image, no patch, no row of a patient or scan, no date, no
identifier and no hash of one. No sum of fewer than {minimum}.
Not proven anonymous. Who has a patient's images can test whether they are in the profile: of ten
simulated patients and fewer with certainty, of fifty little better than by chance
(docs/reference/profiles.md). An image cannot be computed from it, for no position and
no phase is kept.
Merging adds. The same patient in two profiles that are merged counts twice, and cannot be noticed:
no overlap is the duty of who merges.
Research use only; not a medical device.
"""


def profile_card(profile: ScannerProfile) -> str:
    """The card of a profile, as text.

    Its first line warns where sums of fewer than three patients are kept.
    """
    texture = profile.texture
    rows = [
        ("scanner", "kernel", "kVp", "patients", "series", "slices"),
        *(
            (
                group.acquisition.scanner or "other or unknown",
                group.acquisition.kernel or "-",
                f"{group.acquisition.kvp:g}" if group.acquisition.kvp else "-",
                str(group.n_patients),
                str(group.n_series),
                str(group.n_slices),
            )
            for group in profile.groups
        ),
    ]
    facts = (
        f"patients {profile.n_patients}, series {profile.n_series}, slices {profile.n_slices}\n"
        f"pixel spacing {_span(profile.pixel_mm)}, slice thickness {_span(profile.thickness_mm)}\n"
        f"patches: {texture.n_body} of bodies ({texture.layout.patch_mm:g} mm), "
        f"{texture.n_soft} of soft tissue (20 mm)\n"
        f"frequencies up to {texture.frequencies_per_mm[-1]:g} cycles/mm in steps of "
        f"{texture.layout.step_per_mm:g}\n"
    )
    warning = FEW if profile.few_patients else ""
    minimum = f"{MIN_PATCHES} patches"
    if not profile.few_patients:
        minimum += f" or {MIN_PATIENTS} patients, nor any difference of two"
    privacy = PRIVACY.format(minimum=minimum)
    digest = f"\nsha256 {profile.sha256}\n" if profile.sha256 else ""
    return (
        f"{warning}Profile of a CT scanner (cvsct)\n\n{columns(rows)}\n\n{facts}\n{privacy}{digest}"
    )


def _span(lengths: tuple[float, float]) -> str:
    low, high = lengths
    if not high:
        return "unknown"
    return f"{low:g} mm" if low == high else f"{low:g} to {high:g} mm"
