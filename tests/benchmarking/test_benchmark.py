"""The benchmark's plan: the paper's numbers, unpaired to train on, paired to test on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from cvsct.core.errors import UsageError
from cvsct.simulation.benchmark import (
    GE,
    KERNELS_REPEAT,
    KERNELS_TEST,
    KERNELS_TRAIN,
    PAIRED,
    PARTS,
    REPEAT,
    SIEMENS,
    TEST,
    TRAIN,
    Scan,
    SimulationOptions,
    Subject,
)
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.plan import SCALES, plan

KERNELS = ("Bl64", "Br40")


def images(scans: list[Scan]) -> int:
    return sum(scan.n_images for scan in scans)


def of(scans: tuple[Scan, ...], part: str, scanner: str = "", kernel: str = "") -> list[Scan]:
    return [
        scan
        for scan in scans
        if scan.part == part
        and scanner in ("", scan.scanner)
        and (not kernel or kernel in scan.kernels)
    ]


def bodies(scans: list[Scan]) -> set[Subject]:
    return {scan.body for scan in scans}


def test_the_paper_s_numbers_come_out_exactly() -> None:
    scans = plan("paper", 0)
    ge, siemens = of(scans, TRAIN, GE), of(scans, TRAIN, SIEMENS)
    assert images(ge) == 11_070
    assert images(siemens) == 9_156
    assert images([s for s in siemens if s.body.kind == "lungman"]) == 7_290
    assert images([s for s in siemens if s.body.kind == "patient"]) == 1_866
    assert {s.thickness_mm for s in ge} == {0.625, 1.25, 2.5, 3.75, 5}
    assert {s.thickness_mm for s in siemens} == {1, 1.5, 3, 5}
    assert {kvp for s in ge for kvp in s.kvps} == {70, 80, 100, 120, 140}
    assert images(of(scans, TEST, GE)) == images(of(scans, TEST, SIEMENS)) == 250
    kernels = of(scans, KERNELS_TRAIN)
    assert images(kernels) == 9_580
    assert {s.thickness_mm for s in kernels} == {0.5, 1, 1.5, 3}
    assert {s.kvps for s in kernels} == {(120.0,)}
    longest_mm = {"lungman": 250, "patient": 200}
    assert all(s.slices * s.thickness_mm <= longest_mm[s.body.kind] for s in scans)


@pytest.mark.parametrize("scale", list(SCALES))
def test_training_is_unpaired_and_the_test_body_unseen(scale: str) -> None:
    scans = plan(scale, 3)
    ge, siemens = bodies(of(scans, TRAIN, GE)), bodies(of(scans, TRAIN, SIEMENS))
    bl64, br40 = (bodies(of(scans, KERNELS_TRAIN, kernel=kernel)) for kernel in ("Bl64", "Br40"))
    groups = [ge, siemens, bl64, br40, bodies(of(scans, TEST)), bodies(of(scans, KERNELS_TEST))]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert len({body.seed for body in set.union(*groups)}) == len(set.union(*groups))
    other_seed = {scan.body.seed for scan in plan(scale, 4)}
    assert not other_seed & {scan.body.seed for scan in scans}


@pytest.mark.parametrize("scale", list(SCALES))
def test_pairs_are_the_same_positions_of_one_body(scale: str) -> None:
    scans = plan(scale, 0)
    ge, siemens = of(scans, TEST, GE), of(scans, TEST, SIEMENS)
    assert len(ge) == len(siemens) == 1
    for scan in (ge[0], siemens[0]):
        assert (scan.body, scan.fov_mm, scan.matrix_px) == (
            ge[0].body, ge[0].fov_mm, ge[0].matrix_px,
        )  # fmt: skip
        assert [scan.z_mm(i) for i in range(scan.slices)] == [
            ge[0].z_mm(i) for i in range(ge[0].slices)
        ]
        assert scan.kvps == ge[0].kvps
    for scan in of(scans, KERNELS_TEST):
        assert scan.kernels == ("Bl64", "Br40"), "both kernels from one scan, one noise"
    assert len(bodies(of(scans, KERNELS_TEST))) == 1


@pytest.mark.parametrize("scale", list(SCALES))
def test_a_repeat_is_the_test_scan_but_for_its_noise(scale: str) -> None:
    scans = plan(scale, 0, SimulationOptions(shift_px=1.0))
    for part, again in ((TEST, REPEAT), (KERNELS_TEST, KERNELS_REPEAT)):
        first, second = of(scans, part), of(scans, again)
        assert len(first) == len(second) > 0
        for one, other in zip(first, second, strict=True):
            assert replace(other, part=one.part, number=one.number) == one
            assert str(other) != str(one), "the names of the noise's streams"


@pytest.mark.parametrize("scale", list(SCALES))
def test_bodies_to_learn_pairs_from_lie_on_both_scanners_and_nowhere_else(scale: str) -> None:
    scans = plan(scale, 0, SimulationOptions(shift_px=1.0), (PAIRED,))
    ge, siemens = of(scans, PAIRED, GE), of(scans, PAIRED, SIEMENS)
    assert len(ge) + len(siemens) == len(scans)
    for one, other in zip(ge, siemens, strict=True):
        same = {"number": 0, "scanner": "", "kernels": ()}
        assert replace(one, **same) == replace(other, **same)
        assert str(one) != str(other), "the names of the noise's streams"
    assert {each.kind for each in bodies(ge)} == {"lungman", "patient"}
    assert bodies(ge).isdisjoint(bodies(list(plan(scale, 0))))
    assert all(scan.shift_mm == (0.0, 0.0) for scan in scans)
    everything = plan(scale, 0, parts=(*PARTS, PAIRED))
    folders = [each.folder for scan in everything for each in scan.series()]
    assert len(set(folders)) == len(folders)
    assert len({each.number for scan in everything for each in scan.series()}) == len(folders)
    assert {each.rpartition("/")[0] for each in folders} >= {f"paired/{GE}", f"paired/{SIEMENS}"}


@pytest.mark.parametrize("scale", ["tiny", "demo"])
def test_there_is_as_much_to_learn_from_pairs_as_without(scale: str) -> None:
    """So that a comparison of the two kinds of method is one of methods, not of data."""
    everything = plan(scale, 0, parts=(TRAIN, PAIRED))
    for scanner in (GE, SIEMENS):
        alone, paired = (of(everything, part, scanner) for part in (TRAIN, PAIRED))
        assert [(s.body.kind, s.n_images, s.thickness_mm, s.kvps) for s in alone] == [
            (s.body.kind, s.n_images, s.thickness_mm, s.kvps) for s in paired
        ]


def test_pairs_at_the_paper_s_scale() -> None:
    scans = plan("paper", 0, parts=(PAIRED,))
    for scanner in (GE, SIEMENS):
        one = of(scans, PAIRED, scanner)
        assert sum(scan.slices for scan in one) == images(one) == 200
        assert Counter(scan.body.kind for scan in one) == {"lungman": 4, "patient": 4}
        assert {(scan.thickness_mm, scan.kvps, scan.slices) for scan in one} == {(5, (120,), 25)}


def test_pairs_are_made_only_when_asked_for_and_change_nothing_else() -> None:
    """The bodies and the names of the noise's streams that the benchmark had without them."""
    scans = plan("demo", 0)
    assert [str(scan) for scan in scans] == [
        f"train/{GE}/lungman-0001_5mm",
        f"train/{GE}/patient-0002_5mm",
        f"test/{GE}/lungman-0003_5mm",
        f"train/{SIEMENS}/lungman-0004_5mm",
        f"train/{SIEMENS}/patient-0005_5mm",
        f"test/{SIEMENS}/lungman-0003_5mm",
        f"kernels/train/{SIEMENS}/patient-0006_3mm",
        f"kernels/train/{SIEMENS}/patient-0007_3mm",
        f"kernels/test/{SIEMENS}/patient-0008_3mm",
        f"repeat/{GE}/lungman-0003_5mm",
        f"repeat/{SIEMENS}/lungman-0003_5mm",
        f"kernels/repeat/{SIEMENS}/patient-0008_3mm",
    ]
    assert [scan.number for scan in scans] == list(range(12))
    assert images(list(plan("paper", 0))) == 11_070 + 9_156 + 9_580 + 2 * (2 * 250 + 2 * 200)


def test_parts_are_what_they_are_in_the_whole() -> None:
    whole = plan("demo", 2)
    assert set(whole) == {scan for part in PARTS for scan in plan("demo", 2, parts=(part,))}
    with pytest.raises(UsageError, match="no part 'tests'; did you mean 'test'"):
        plan("demo", 2, parts=("tests",))
    with pytest.raises(UsageError, match="kernels/repeat, paired"):
        plan("demo", 2, parts=())


@pytest.mark.parametrize("scale", list(SCALES))
def test_every_series_has_its_own_folder_number_and_noise(scale: str) -> None:
    scans = plan(scale, 0)
    series = [each for scan in scans for each in scan.series()]
    assert max(Counter(each.folder for each in series).values()) == 1
    assert max(Counter(each.number for each in series).values()) == 1
    assert len({str(scan) for scan in scans}) == len(scans), "the names of the noise's streams"
    assert {each.folder.rpartition("/")[0] for each in series} == {
        *(f"{part}/{scanner}" for part in (TRAIN, TEST, REPEAT) for scanner in (GE, SIEMENS)),
        *(f"kernels/{part}/{kernel}" for part in (TRAIN, TEST, REPEAT) for kernel in KERNELS),
    }
    names = [each.folder.rpartition("/")[2].split("_") for each in series]
    assert all(name[1].endswith("kVp") and name[2].endswith("mm") for name in names)


def test_stacks_lie_around_the_middle_of_the_body() -> None:
    for scan in plan("paper", 0):
        assert scan.z_mm(0) == pytest.approx(-scan.z_mm(scan.slices - 1))


def test_the_demo_is_small_enough() -> None:
    scans = plan("demo", 0)
    assert images(list(scans)) <= 82
    assert images(of(scans, TRAIN, GE)) == images(of(scans, TRAIN, SIEMENS)) >= 16
    assert {s.body.kind for s in of(scans, TRAIN, GE)} == {"lungman", "patient"}


@pytest.mark.parametrize("scale", list(SCALES))
def test_the_scanners_can_do_what_is_planned(scale: str) -> None:
    for scan in plan(scale, 0, parts=(*PARTS, PAIRED)):
        definition = load_definition(scan.scanner)
        assert scan.thickness_mm in definition.protocol.thicknesses_mm
        assert set(scan.kvps) <= set(definition.tube.kvp)
        assert set(scan.kernels) <= set(definition.kernels)


def test_dose_is_matched_by_ctdi_vol_on_request() -> None:
    equal = plan("tiny", 0, SimulationOptions(mas=80.0))
    assert {mas for scan in equal for mas in scan.mas} == {80}
    for scan in plan("tiny", 0, SimulationOptions(mas=80.0, match_dose=True)):
        for kvp, mas in zip(scan.kvps, scan.mas, strict=True):
            doses = [
                load_definition(name).protocol.ctdi_vol_mgy_per_100mas[kvp] * its / 100
                for name, its in ((GE, 80), (scan.scanner, mas))
            ]
            assert doses[0] == pytest.approx(doses[1])


def test_only_the_target_of_the_test_pair_is_shifted() -> None:
    shifted = {
        (scan.part, scan.scanner): scan.shift_mm
        for scan in plan("demo", 0, SimulationOptions(shift_px=2.0, fov_mm=256.0))
        if scan.shift_mm != (0.0, 0.0)
    }
    assert shifted == {(TEST, SIEMENS): (1.0, 0.0), (REPEAT, SIEMENS): (1.0, 0.0)}


def test_parenchyma_makes_other_bodies() -> None:
    assert plan("tiny", 0)[0].body.name == "lungman-0001"
    assert (
        plan("tiny", 2, SimulationOptions(parenchyma=True))[0].body.name
        == "lungman-20001-parenchyma"
    )


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(UsageError, match="no scale 'huge'; choose one of tiny, demo, paper"):
        plan("huge", 0)
