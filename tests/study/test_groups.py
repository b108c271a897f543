"""Groups of series: merged, split, joined or left out by what is measured; and their reference."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from cvsct.core.volume import Acquisition
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.scan_record import ScanRecord
from cvsct.profile.profile import ScannerProfile, measure_profile
from cvsct.study.groups import GroupRules, StudyGroup, group_series
from cvsct.study.measure import MeasuredProfiles, noise_level
from cvsct.study.reference import (
    ReachRules,
    cannot_reach,
    common_thickness,
    propose_reference,
)
from cvsct.study.series import StudySeries
from tests.conftest import make_volume
from tests.support.studies import PIXEL_MM, trunk_hu

SOFT = Acquisition("SIEMENS", "SOMATOM Force", "Br40", 120.0)
OTHER_MODEL = replace(SOFT, model="SOMATOM Drive")
OTHER_KERNEL = replace(SOFT, kernel="Br44")
OTHER_MAKER = Acquisition("GE MEDICAL SYSTEMS", "Revolution CT", "STANDARD", 120.0)
BLUR_PX, NOISE_HU = 0.5, 30.0


@dataclass(frozen=True)
class Scan:
    """A scan of a group test: header, and how its scanner sees."""

    number: int
    acquisition: Acquisition = SOFT
    blur_px: float = BLUR_PX
    noise_hu: float = NOISE_HU
    suffix: str = ".dcm"
    thickness_mm: float = 3.0
    spacing_mm: float = 3.0
    contrast: str = ""
    slices: int = 4

    @property
    def series(self) -> StudySeries:
        """What its headers say."""
        uid = f"1.2.{self.number}"
        record = ScanRecord(
            SeriesFiles(uid, (Path(f"{uid}{self.suffix}"),)), uid, patient_id=f"P{self.number}",
            series_uid=uid, acquisition=self.acquisition,
        )  # fmt: skip
        return StudySeries(
            record, n_slices=10, thickness_mm=self.thickness_mm, spacing_mm=self.spacing_mm,
            contrast=self.contrast,
        )  # fmt: skip


@cache
def profile_of(number: int, blur_px: float, noise_hu: float, slices: int = 4) -> ScannerProfile:
    """Profile of one small scan."""
    volume = make_volume(trunk_hu(number, blur_px, noise_hu, slices), 3.0, PIXEL_MM)
    named = replace(volume, patient=f"P{number}", series_uid=f"1.2.{number}")
    return measure_profile([named])


class InMemory(MeasuredProfiles):
    """Profiles that lie in no files."""

    def __init__(self, scans: Sequence[Scan]) -> None:
        super().__init__({scan.series.key: Path() for scan in scans})
        self.held = {
            scan.series.key: profile_of(scan.number, scan.blur_px, scan.noise_hu, scan.slices)
            for scan in scans
        }

    def __getitem__(self, key: str) -> ScannerProfile:
        return self.held[key]


def grouped(
    scans: Sequence[Scan], rules: GroupRules | None = None
) -> tuple[list[StudyGroup], list[tuple[StudySeries, str]]]:
    fitted = {scan.series.key: scan.thickness_mm for scan in scans}
    series = [scan.series for scan in scans]
    return group_series(series, InMemory(scans), fitted, rules or GroupRules())


def three(first: int, **changes: object) -> list[Scan]:
    """Scans of three patients."""
    return [Scan(first + i, **changes) for i in range(3)]  # type: ignore[arg-type]


def test_groups_of_one_maker_and_kernel_that_agree_become_one() -> None:
    groups, left_out = grouped([*three(1), *three(4, acquisition=OTHER_MODEL)])
    assert not left_out
    (group,) = groups
    assert group.n_patients == 6
    assert "siemens-somatom-force-br40-120kv-3mm is merged into it" in group.notes[0]


@pytest.mark.parametrize(
    "change",
    [
        {"acquisition": OTHER_MODEL, "noise_hu": 45.0},
        {"acquisition": OTHER_MODEL, "blur_px": 0.8},
        {"acquisition": OTHER_KERNEL},
        {"acquisition": OTHER_MAKER},
        {"suffix": ".nii.gz"},
        {"thickness_mm": 5.0, "spacing_mm": 5.0},
    ],
    ids=["noise", "sharpness", "kernel", "maker", "format", "thickness"],
)
def test_groups_that_differ_stay_apart(change: dict[str, object]) -> None:
    groups, left_out = grouped([*three(1), *three(4, **change)])
    assert [group.n_patients for group in groups] == [3, 3]
    assert not left_out


def test_two_levels_of_noise_are_two_groups() -> None:
    groups, _ = grouped([*three(1), *three(4, noise_hu=55.0)])
    assert {group.name.rsplit("-", 1)[1]: group.n_patients for group in groups} == {
        "quiet": 3, "noisy": 3,
    }  # fmt: skip
    quiet = next(group for group in groups if group.name.endswith("quiet"))
    assert {series.patient for series in quiet.members} == {"P1", "P2", "P3"}
    assert "split from siemens-somatom-force-br40-120kv-3mm" in quiet.notes[-1]


def test_one_level_of_noise_is_never_two_groups() -> None:
    for first in (1, 11, 21):
        scans = [Scan(first + i, noise_hu=NOISE_HU * (0.97 + 0.01 * i)) for i in range(7)]
        assert len(grouped(scans)[0]) == 1


def test_noise_of_thin_and_of_stout_patients_compares() -> None:
    levels = [noise_level(profile_of(number, BLUR_PX, NOISE_HU)) for number in range(1, 6)]
    assert max(levels) - min(levels) < 0.2


def test_a_group_that_is_too_small_joins_the_nearest_of_its_maker() -> None:
    near, far = three(1, noise_hu=24.0), three(4, acquisition=OTHER_MODEL, noise_hu=60.0)
    alone = Scan(7, acquisition=OTHER_KERNEL, noise_hu=27.0, slices=8)
    groups, left_out = grouped([*near, *far, alone])
    assert not left_out
    sizes = {group.name: group.n_patients for group in groups}
    assert sizes == {
        "siemens-somatom-force-br40-120kv-3mm": 4, "siemens-somatom-drive-br40-120kv-3mm": 3,
    }  # fmt: skip
    (joined,) = (group for group in groups if group.n_patients == 4)
    assert (
        "siemens-somatom-force-br44-120kv-3mm (1 patients, of 3 needed (min_patients)) joins it"
        in (joined.notes[-1])
    )


@pytest.mark.parametrize(
    ("alone", "reason"),
    [
        ({"noise_hu": 90.0, "acquisition": OTHER_KERNEL, "slices": 8}, "near enough to join"),
        ({"acquisition": OTHER_KERNEL}, "too little tissue to compare"),
        ({"acquisition": OTHER_MAKER}, "there is no group of its manufacturer and thickness"),
    ],
)
def test_a_small_group_that_is_like_none_is_left_out_by_name(
    alone: dict[str, object], reason: str
) -> None:
    groups, left_out = grouped([*three(1), Scan(7, **alone)])  # type: ignore[arg-type]
    assert len(groups) == 1
    ((series, why),) = left_out
    assert series.patient == "P7"
    assert "1 patients, of 3 needed (min_patients)" in why
    assert reason in why


def test_no_group_is_large_enough_where_slices_are_few() -> None:
    groups, left_out = grouped(three(1), GroupRules(min_slices=31))
    assert groups == []
    assert {why.split(",")[0] for _, why in left_out} == {
        "group siemens-somatom-force-br40-120kv-3mm: 30 slices"
    }


def test_names_of_groups_are_unique() -> None:
    """Two models of one last word, and a kernel that looks like a number of a name."""
    plain = Acquisition("Maker", "Alpha One", "K", 0.0)
    scans = [
        *three(1, acquisition=plain, thickness_mm=0.0),
        *three(4, acquisition=replace(plain, model="Beta One"), thickness_mm=0.0, noise_hu=50.0),
        *three(11, acquisition=replace(plain, kernel="K 2"), thickness_mm=0.0),
        *three(14, acquisition=replace(plain, model="Beta One", kernel="K 2"), thickness_mm=0.0,
               noise_hu=50.0),
    ]  # fmt: skip
    names = [group.name for group in grouped(scans)[0]]
    assert len(names) == len(set(names)) == 4


def test_the_order_of_the_series_changes_no_group() -> None:
    scans = [
        *three(1), *three(4, acquisition=OTHER_MODEL), *three(11, acquisition=OTHER_KERNEL),
        *three(14, noise_hu=55.0), Scan(7, acquisition=OTHER_MAKER),
    ]  # fmt: skip

    def shape(these: Sequence[Scan]) -> list[tuple[str, frozenset[str]]]:
        return [
            (group.name, frozenset(series.patient for series in group.members))
            for group in grouped(these)[0]
        ]

    expected = shape(scans)
    for seed in range(3):
        shuffled = random.Random(seed).sample(scans, len(scans))
        assert shape(shuffled) == expected


def thick(number: int, thickness_mm: float, spacing_mm: float = 0.0) -> StudySeries:
    return Scan(number, thickness_mm=thickness_mm, spacing_mm=spacing_mm or thickness_mm).series


def test_the_thickness_is_the_thinnest_that_most_patients_reach() -> None:
    series = [thick(i, 1.0) for i in range(5)] + [thick(10 + i, 3.0) for i in range(5)]
    assert common_thickness(series, 3) == 3.0
    assert common_thickness(series[:5], 3) == 1.0
    few_thick = [*series, thick(20, 5.0), thick(21, 5.0)]
    assert common_thickness(few_thick, 3) == 3.0, "two patients make no reference"
    gaps = [thick(i, 1.0, spacing_mm=10.0) for i in range(6)]
    assert common_thickness([*gaps, *(thick(30 + i, 5.0) for i in range(4))], 3) == 1.0
    assert common_thickness([thick(1, 0.0)], 1) == 0.0


@pytest.mark.parametrize(
    ("own_mm", "spacing_mm", "reason"),
    [
        (3.0, 3.0, ""),
        (2.9, 2.9, ""),
        (1.0, 1.0, ""),
        (5.0, 5.0, "thinner ones are never made up"),
        (1.0, 10.0, "between which the body was not seen"),
        (0.0, 1.0, "tells no slice thickness"),
    ],
)
def test_thicker_slices_are_made_of_thinner_contiguous_ones_alone(
    own_mm: float, spacing_mm: float, reason: str
) -> None:
    said = cannot_reach(thick(1, own_mm, spacing_mm), 3.0)
    assert (reason in said) if reason else said == ""


@cache
def seen_alike() -> tuple[StudyGroup, ...]:
    """A sharp, a middle and a soft group of three patients each."""
    scans = [
        *three(1, blur_px=0.2, noise_hu=45.0),
        *three(4, acquisition=OTHER_KERNEL),
        *three(11, acquisition=OTHER_MAKER, blur_px=1.3, noise_hu=12.0),
    ]
    return tuple(grouped(scans)[0])


def named(maker_and_kernel: str) -> str:
    return next(group.name for group in seen_alike() if maker_and_kernel in group.name)


def test_a_reference_far_sharper_than_a_group_is_no_honest_one() -> None:
    sharp, soft = named("br40"), named("standard")
    proposal = propose_reference(seen_alike(), 3.0, ReachRules(), given=sharp)
    objections = {reach.group: reach.objection for reach in proposal.reaches}
    assert "times sharper (sharpening)" in objections[soft]
    back = propose_reference(seen_alike(), 3.0, ReachRules(), given=soft)
    assert not {reach.objection for reach in back.reaches if reach.group == named("br44")} - {""}
    wide = ReachRules(sharpening=50, quieting=50, noise=50)
    assert not any(
        reach.objection for reach in propose_reference(seen_alike(), 3.0, wide, given=sharp).reaches
    )


@pytest.mark.parametrize(
    ("rules", "given", "word"),
    [
        (ReachRules(sharpening=50, quieting=1.05), "soft", "(quieting)"),
        (ReachRules(sharpening=50, noise=1.05), "loud", "(noise)"),
    ],
)
def test_noise_is_honest_within_limits_beyond_what_sharpness_does(
    rules: ReachRules, given: str, word: str
) -> None:
    """Two groups of one sharpness: one cannot be quieted, nor noise made up, without a limit."""
    groups, _ = grouped(
        [*three(1, noise_hu=20.0), *three(4, acquisition=OTHER_MAKER, noise_hu=40.0)]
    )
    quiet = next(group.name for group in groups if "siemens" in group.name)
    loud = next(group.name for group in groups if "ge" in group.name.split("-"))
    reference = quiet if given == "soft" else loud
    (reach,) = propose_reference(groups, 3.0, rules, given=reference).reaches
    assert word in reach.objection


def test_the_proposal_is_the_group_that_most_patients_come_to() -> None:
    proposal = propose_reference(seen_alike(), 3.0, ReachRules())
    assert proposal.n_patients == max(
        propose_reference(seen_alike(), 3.0, ReachRules(), given=group.name).n_patients
        for group in seen_alike()
    )
    assert "other groups can be brought" in proposal.reasons[0]
