"""Choice of one series a patient and scanner: which rule decides, and what the reason says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from cvsct.core.volume import Acquisition
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.mask_files import MaskFile
from cvsct.io.scan_record import ScanRecord
from cvsct.study.choice import ChoiceRules, choose_series
from cvsct.study.kernels import kernel_class
from cvsct.study.series import StudySeries

MASK = (MaskFile(Path("m.dcm"), Path("m.dcm")),)
NAMED = (MaskFile(Path("m.dcm"), Path("m.dcm"), frozenset({"1.2.1"})),)
PLAIN = {
    "kernel": "Br40", "thickness_mm": 3.0, "n_slices": 10, "study_date": "20200101",
    "contrast": "", "masks": (), "patient": "P1", "site": "", "maker": "SIEMENS", "model": "Force",
    "refused": "", "derived": "",
}  # fmt: skip


def series(uid: str, **changes: Any) -> StudySeries:
    """A series of one patient on one scanner, but for what is changed."""
    own = {**PLAIN, **changes}
    record = ScanRecord(
        SeriesFiles(uid, (Path("scans") / uid / "1.dcm",)), f"scans/{uid}",
        patient_id=own["patient"], series_uid=uid, derived_uid=own["derived"],
        acquisition=Acquisition(own["maker"], own["model"], own["kernel"], 120.0),
    )  # fmt: skip
    names = ("site", "study_date", "n_slices", "thickness_mm", "contrast", "masks", "refused")
    return StudySeries(record, **{name: own[name] for name in names})


def chosen(found: list[Any]) -> list[str]:
    return [choice.series.record.own_uid for choice in found if choice.used]


@pytest.mark.parametrize(
    ("better", "worse", "rules", "reason"),
    [
        ({"masks": NAMED}, {"masks": MASK}, {}, "is the one that a mask names"),
        ({"masks": MASK}, {}, {"need_masks": False}, "has a mask"),
        ({}, {"kernel": "Bl64"}, {}, "has a soft kernel"),
        ({"kernel": "Bl64"}, {}, {"kernel": "sharp"}, "has a sharp kernel"),
        ({"contrast": "no"}, {"contrast": "yes"}, {"contrast": "no"}, "is of the contrast phase"),
        ({"thickness_mm": 1.5}, {}, {}, "has the thinnest slices"),
        ({"thickness_mm": 5.0}, {}, {"thickness": "thickest"}, "has the thickest slices"),
        ({"n_slices": 11}, {}, {}, "has more slices"),
        ({"study_date": "20210101"}, {}, {}, "is later"),
        ({}, {}, {}, "comes first by its UID"),
    ],
)  # fmt: skip
def test_the_first_rule_in_which_two_series_differ_decides(
    better: dict[str, Any], worse: dict[str, Any], rules: dict[str, Any], reason: str
) -> None:
    two = [
        series("1.2.1" if better or worse else "1.2.2", **better),
        series("1.2.2" if better or worse else "1.2.1", **worse),
    ]
    found = choose_series(two, ChoiceRules(**rules))
    assert [choice.used for choice in found] == [True, False]
    assert found[0].reason == "chosen of 2 series of this patient on this scanner"
    assert reason in found[1].reason
    assert found[0].series.record.path in found[1].reason


def test_an_earlier_rule_goes_before_all_later_ones() -> None:
    rules = ChoiceRules(contrast="no", need_masks=False)
    merits: list[dict[str, Any]] = [
        {"masks": MASK, "kernel": "Bl64", "contrast": "yes"},
        {"kernel": "Br40", "contrast": "yes", "thickness_mm": 5.0},
        {"kernel": "Bl64", "contrast": "no", "thickness_mm": 5.0},
        {"kernel": "Bl64", "contrast": "yes", "thickness_mm": 1.0, "n_slices": 5},
        {"kernel": "Bl64", "contrast": "yes", "n_slices": 30, "study_date": "20190101"},
    ]
    for winner in range(len(merits) - 1):
        these = [series(f"1.2.{i}", **merits[i]) for i in range(winner, len(merits))]
        assert chosen(choose_series(these, rules)) == [f"1.2.{winner}"]


def test_every_scanner_of_a_patient_keeps_a_series() -> None:
    found = choose_series(
        [
            series("1.1"),
            series("1.2", maker="GE MEDICAL SYSTEMS"),
            series("1.3", patient="P2"),
            series("1.4", site="elsewhere"),
        ],
        ChoiceRules(),
    )
    assert all(choice.used for choice in found)
    assert {choice.reason for choice in found} == {"the only series on this scanner"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"refused": "no slices"}, "cannot be read: no slices"),
        ({"derived": "1.9"}, "made by this program"),
        ({"n_slices": 2}, "2 slices, of 3 needed (min_slices)"),
        ({"masks": ()}, "no mask belongs to it (need_masks)"),
    ],
)
def test_a_series_that_cannot_be_used_says_why_and_never_wins(
    change: dict[str, Any], reason: str
) -> None:
    unfit = series("1.1", **{"masks": MASK, "thickness_mm": 0.5, **change})
    found = choose_series([unfit, series("1.2", masks=MASK)], ChoiceRules())
    assert chosen(found) == ["1.2"]
    assert reason in found[0].reason


def test_no_mask_is_needed_where_the_study_has_none() -> None:
    assert chosen(choose_series([series("1.1")], ChoiceRules())) == ["1.1"]


def test_the_order_of_the_series_changes_nothing() -> None:
    every = [series(f"1.{i}", patient=f"P{i % 3}", n_slices=5 + i % 4) for i in range(12)]
    expected = set(chosen(choose_series(every, ChoiceRules())))
    random.Random(0).shuffle(every)
    assert set(chosen(choose_series(every, ChoiceRules()))) == expected


@pytest.mark.parametrize(
    ("maker", "kernels", "kind"),
    [
        ("SIEMENS", ("B30f", "B31f", "I26s\\3", "Br40d\\3", "Br36", "Bf37f", "Qr40"), "soft"),
        ("Siemens Healthineers", ("B70f", "B50f", "B80f", "Bl57d\\3", "Br64", "I70f\\2"), "sharp"),
        ("GE MEDICAL SYSTEMS", ("STANDARD", "SOFT", "CHST", "DETAIL"), "soft"),
        ("GE MEDICAL SYSTEMS", ("LUNG", "BONE", "BONEPLUS", "EDGE"), "sharp"),
        ("GE MEDICAL SYSTEMS", ("PRIVATE", ""), ""),
        ("Philips", ("B", "C", "A", "UB"), "soft"),
        ("Philips", ("L", "YA", "YB", "D", "E"), "sharp"),
        ("TOSHIBA", ("FC01", "FC08", "FC13-H", "FC18"), "soft"),
        ("Canon Medical Systems", ("FC51", "FC52", "FC30", "FC86"), "sharp"),
        ("Hitachi Medical", ("22",), ""),
        ("", ("Br40",), ""),
    ],
)
def test_the_class_of_a_kernel_follows_its_makers_names(
    maker: str, kernels: tuple[str, ...], kind: str
) -> None:
    assert {name: kernel_class(maker, name) for name in kernels} == dict.fromkeys(kernels, kind)
