"""Plan of a simulation: the scans of the parts that are asked for, at one scale.

Parts form groups: `kernels` stands for `kernels/train`, `kernels/test` and `kernels/repeat`,
`pairs/dose` for the three parts of that pair, and `pairs` for those of every pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cvsct.core.errors import UsageError
from cvsct.core.text import did_you_mean
from cvsct.simulation.benchmark import (
    FBP,
    KERNELS,
    PAIRED,
    PAIRS,
    PARTS,
    STUDY,
    ImageSize,
    Scan,
    SimulationOptions,
)
from cvsct.simulation.pairs import ALL_PAIRS, PAIR_PARTS, PairSize, pair_scans
from cvsct.simulation.paper_scans import paper_scans
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.study import StudyPatient, StudySize, draw_patients, study_scans


@dataclass(frozen=True)
class _Scale:
    """Sizes of images, pairs and study at a scale."""

    images: ImageSize
    pairs: PairSize
    study: StudySize


SCALES = {
    "tiny": _Scale(ImageSize(128, 256), PairSize(1, 1, 3), StudySize(10, 25.0)),
    "demo": _Scale(ImageSize(), PairSize(2, 1, 8), StudySize(20, 45.0)),
    "paper": _Scale(ImageSize(), PairSize(8, 4, 25), StudySize(150, 60.0)),
}
"""Scales by name."""

ALL_PARTS = (
    *PARTS,
    PAIRED,
    *(f"{PAIRS}/{pair.name}/{part}" for pair in ALL_PAIRS for part in PAIR_PARTS),
    STUDY,
)
"""Every part there is."""

DEFAULT_OPTIONS = SimulationOptions()


def plan(
    scale: str,
    seed: int,
    options: SimulationOptions = DEFAULT_OPTIONS,
    parts: Sequence[str] = PARTS,
) -> tuple[Scan, ...]:
    """Plan the scans of a simulation.

    Args:
        scale: `tiny`, `demo` or `paper`.
        seed: seed of bodies and noise.
        options: options of all scans.
        parts: parts, or groups of parts, to plan; by default those of `PARTS`.

    Returns:
        The scans, in a fixed order. A scan has the same number and body whatever parts are asked
        for.

    Raises:
        UsageError: if there is no such scale or part, or a scanner lacks the mode or the
            reconstructions that are asked for.
    """
    size = _scale(scale)
    wanted = expand_parts(parts)
    _check_options(options, wanted)
    scans = (
        *paper_scans(scale, seed, options, size.images),
        *pair_scans(size.pairs, seed, options, size.images),
        *study_scans(plan_patients(scale, seed), size.study, seed, options, size.images),
    )
    planned = tuple(scan for scan in scans if scan.part in wanted)
    for scan in planned:
        _check_mode(scan)
    return planned


def plan_patients(scale: str, seed: int) -> tuple[StudyPatient, ...]:
    """Patients of the study at a scale.

    Raises:
        UsageError: if there is no such scale.
    """
    return draw_patients(_scale(scale).study.patients, seed)


def expand_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Parts that names of parts and groups stand for, in the order of `ALL_PARTS`.

    Raises:
        UsageError: if a name stands for none, or there is no name.
    """
    wanted = set()
    for name in names:
        members = [part for part in ALL_PARTS if part == name or part.startswith(f"{name}/")]
        if not members:
            pairs = [f"{PAIRS}/{pair.name}" for pair in ALL_PAIRS]
            groups = (*PARTS, PAIRED, STUDY, KERNELS, PAIRS, *pairs)
            raise UsageError(
                f"no part {name!r}; {did_you_mean(name, (*groups, *ALL_PARTS))}"
                f"choose from {', '.join(groups)}"
            )
        wanted.update(members)
    if not wanted:
        raise UsageError(f"no part given; choose from {', '.join(ALL_PARTS)}")
    return tuple(part for part in ALL_PARTS if part in wanted)


def _scale(name: str) -> _Scale:
    if name not in SCALES:
        raise UsageError(f"no scale {name!r}; choose one of {', '.join(SCALES)}")
    return SCALES[name]


def _check_options(options: SimulationOptions, parts: Sequence[str]) -> None:
    """Raise UsageError if an option is set that pairs or study, among the parts, do not have."""
    own = [part for part in parts if part.startswith(f"{PAIRS}/") or part == STUDY]
    set_options = [
        name
        for name, is_set in (
            ("reconstructions", options.reconstructions != (FBP,)),
            ("match-dose", options.match_dose),
            ("shift-px", options.shift_px != 0),
        )
        if is_set
    ]
    if options.emphysema and not any(part.startswith(f"{PAIRS}/") for part in parts):
        raise UsageError("emphysema is an option of pairs; give --parts pairs or one of them")
    if own and set_options:
        raise UsageError(
            f"{own[0]} cannot have the options {', '.join(set_options)}: each pair and hospital "
            "names reconstruction and tube load of its own; leave the options out, or simulate the "
            "other parts into a folder of their own"
        )


def _check_mode(scan: Scan) -> None:
    """Raise UsageError if a scanner's definition lacks a section that the scan's mode needs."""
    definition = load_definition(scan.scanner)
    for is_needed, section in (
        (scan.mode.tube_current, "tube_current"),
        (scan.mode.helical, "helical"),
    ):
        if is_needed and getattr(definition, section) is None:
            raise UsageError(
                f"{scan.scanner} has no section {section} in its definition, so it cannot be asked "
                "for"
            )
