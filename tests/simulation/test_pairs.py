"""Pairs: techniques that differ in what the pair says, on bodies that the pairs share."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from cvsct.benchmarking.folder import scanner_names
from cvsct.core.errors import UsageError
from cvsct.core.files import config_hash
from cvsct.io.read import read_all
from cvsct.simulation.benchmark import REPEAT, TEST, TRAIN, Scan, ScanMode, SimulationOptions
from cvsct.simulation.pairs import ALL_PAIRS, Pair, Technique
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.plan import ALL_PARTS, expand_parts, plan
from cvsct.simulation.study import HOSPITALS
from tests.support.fake_scanner import FAKE, simulate

FROZEN_SHA256 = "a85ae52047342c0c4b4012ca3e8fdbe2ec1d703098f9f13759e10dcfd1d03267"
BY_NAME = {pair.name: pair for pair in ALL_PAIRS}


def scans_of(pair: str, part: str = "", scale: str = "tiny", seed: int = 0) -> tuple[Scan, ...]:
    name = f"pairs/{pair}/{part}" if part else f"pairs/{pair}"
    return plan(scale, seed, parts=(name,))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("kernel", {"kernel"}),
        ("dose", {"mas"}),
        ("vendor", {"scanner", "kernel"}),
        ("reconstruction", {"reconstruction"}),
        ("thickness", {"thickness_mm"}),
        ("tone", {"scanner"}),
    ],
)
def test_a_pair_differs_in_what_its_name_says_alone(name: str, fields: set[str]) -> None:
    first, second = (asdict(technique) for technique in BY_NAME[name].techniques)
    assert {key for key in first if first[key] != second[key]} == fields | {"name"}


@pytest.mark.parametrize("pair", ALL_PAIRS, ids=lambda pair: pair.name)
def test_both_sides_scan_the_same_bodies_in_the_test_and_others_in_the_training(pair: Pair) -> None:
    bodies = {
        (part, technique.name): {
            scan.body for scan in scans_of(pair.name, part, "paper") if scan.side == technique.name
        }
        for part in (TRAIN, TEST, REPEAT)
        for technique in pair.techniques
    }
    first, second = (technique.name for technique in pair.techniques)
    assert bodies[TEST, first] == bodies[TEST, second] == bodies[REPEAT, second]
    groups = [bodies[TRAIN, first], bodies[TRAIN, second], bodies[TEST, first]]
    assert len(set.union(*groups)) == sum(len(group) for group in groups)


def test_all_pairs_share_bodies_and_a_seed_brings_others() -> None:
    bodies = {
        pair.name: {scan.body for scan in scans_of(pair.name)}
        for pair in ALL_PAIRS
        if pair.kind == "patient"
    }
    assert len({frozenset(group) for group in bodies.values()}) == 1
    others = {scan.body for scan in scans_of("dose", seed=1)}
    assert not others & bodies["dose"]


@pytest.fixture(scope="module")
def kernel_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pairs")
    scans = (*scans_of("kernel"), *scans_of("dose"), *scans_of("thickness"))
    simulate(scans, {}, out, workers=1, builders=FAKE)
    return out / "pairs"


def test_a_pairs_folder_is_laid_out_for_the_benchmark(kernel_pair: Path) -> None:
    assert scanner_names(kernel_pair / "kernel") == ("Bl57", "Br44")
    assert {path.name for path in (kernel_pair / "dose").iterdir()} == {TRAIN, TEST, REPEAT}


def test_reconstructions_of_one_acquisition_share_their_noise_and_scans_do_not(
    kernel_pair: Path,
) -> None:
    """The fake scanner's kernels are as long as their names, and here equally long."""
    images = {}
    for pair, sides in (("kernel", ("Bl57", "Br44")), ("dose", ("200mAs", "40mAs"))):
        for part in (TEST, REPEAT):
            images[pair, part] = [read_all(kernel_pair / pair / part / s)[0].hu for s in sides]
    first, second = images["kernel", TEST]
    assert np.array_equal(first, second)
    assert not np.array_equal(first, images["kernel", REPEAT][0])
    first, second = (hu - hu.mean() for hu in images["dose", TEST])
    assert abs(np.corrcoef(first[:, 1:].ravel(), second[:, 1:].ravel())[0, 1]) < 0.1


def test_thin_and_thick_slices_lie_at_the_same_positions(kernel_pair: Path) -> None:
    thick, thin = (read_all(kernel_pair / "thickness" / TEST / side)[0] for side in ("5mm", "1mm"))
    assert np.array_equal(thick.geometry.z_mm, thin.geometry.z_mm)
    assert (thick.geometry.thickness_mm, thin.geometry.thickness_mm) == (5, 1)
    assert thin.geometry.spacing_mm == 5
    assert float(thin.headers[0].SpacingBetweenSlices) == 5


def test_names_of_parts_and_groups_are_expanded_in_order() -> None:
    assert expand_parts(["kernels"]) == ("kernels/train", "kernels/test", "kernels/repeat")
    assert expand_parts(["pairs/dose/test", "train"]) == ("train", "pairs/dose/test")
    assert set(expand_parts(["pairs"])) == {p for p in ALL_PARTS if p.startswith("pairs/")}
    with pytest.raises(UsageError, match=r"no part 'pairs/dos'; did you mean 'pairs/dose'\?"):
        expand_parts(["pairs/dos"])
    with pytest.raises(UsageError, match="no part 'pair'"):
        expand_parts(["pair"])
    with pytest.raises(UsageError, match="no part given"):
        expand_parts([])


def test_options_scale_the_dose_add_to_the_mode_and_are_refused_where_a_pair_has_its_own() -> None:
    options = SimulationOptions(mas=50.0, mode=ScanMode(table=True))
    scans = plan("tiny", 0, options, ("pairs/held-out", "pairs/dose"))
    assert {scan.mas for scan in scans if "dose" in scan.part} == {(100.0,), (20.0,)}
    assert all(scan.mode.table for scan in scans)
    assert {scan.mode.tube_current for scan in scans if scan.side == "canon"} == {True}
    for changed, name in (
        (replace(options, match_dose=True), "match-dose"),
        (replace(options, shift_px=1.0), "shift-px"),
        (replace(options, reconstructions=("fbp", "iterative-1")), "reconstructions"),
    ):
        with pytest.raises(UsageError, match=f"pairs/dose/train cannot have the options {name}"):
            plan("tiny", 0, changed, ("pairs/dose",))


def test_scans_of_other_parts_do_not_depend_on_the_parts_asked_for() -> None:
    alone = plan("tiny", 0, parts=("pairs/tone/test",))
    assert set(alone) < set(plan("tiny", 0, parts=ALL_PARTS))
    numbers = [scan.number for scan in plan("paper", 0, parts=ALL_PARTS)]
    assert len(set(numbers)) == len(numbers)


def test_the_pair_that_methods_are_judged_on_stays_as_it_was_tuned() -> None:
    """Change nothing here: figures of different days would be of different pairs."""
    techniques = BY_NAME["denoised-quiet-fbp-noisy"].techniques
    record = {
        "techniques": [asdict(technique) for technique in techniques],
        "definitions": [load_definition(technique.scanner).record() for technique in techniques],
    }
    assert config_hash(record) == FROZEN_SHA256


@pytest.mark.parametrize(
    "technique",
    [
        *(technique for pair in ALL_PAIRS for technique in pair.techniques),
        *(technique for hospital in HOSPITALS for technique in hospital.protocols),
    ],
    ids=lambda technique: f"{technique.name}-{technique.kernel}",
)
def test_a_technique_asks_of_its_scanner_what_it_has(technique: Technique) -> None:
    definition = load_definition(technique.scanner)
    assert technique.thickness_mm in definition.protocol.thicknesses_mm
    assert technique.kvp in definition.tube.kvp
    definition.kernel(technique.kernel)
    definition.strength(technique.reconstruction)
