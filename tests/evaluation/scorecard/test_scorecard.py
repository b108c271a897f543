"""The tiles turn for what they are for, and stay as they are for a retest."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cvsct.core.volume import CTVolume
from cvsct.evaluation.evaluate import evaluate
from cvsct.evaluation.guards import FlaggedSlice, GuardRecord
from cvsct.evaluation.image.alignment import Alignment
from cvsct.evaluation.image.tissues import TissueBias
from cvsct.evaluation.independence import Independence
from cvsct.evaluation.report.write import metrics
from cvsct.evaluation.resampled import Resampled
from cvsct.evaluation.result import Evaluation
from cvsct.evaluation.scorecard.tile import Status, Tile
from cvsct.evaluation.scorecard.tolerances import Tolerances
from cvsct.evaluation.settings import EvaluationSettings
from tests.conftest import make_volume

DEFAULTS = Tolerances.read()
SMALL = DEFAULTS.model_copy(  # the phantom has room for a dozen patches of noise, not for 200
    update={
        "noise_texture": DEFAULTS.noise_texture.model_copy(update={"passes": 0.12}),
        "features": DEFAULTS.features.model_copy(update={"passes": 0.7, "fails": 0.6}),
    }
)
FULL = EvaluationSettings(
    rois=24, roi_px=16, bootstrap=200, spectrum_px=32, workers=1, tolerances=SMALL
)
FAST = FULL.model_copy(update={"rois": 3, "bootstrap": 20})
SIZE_PX, SLICES = 192, 8
INSIDE = GuardRecord("1", "in_domain", 0.9, (), SLICES, ())
UNKNOWN_TO_THE_MODEL = Independence(
    {"source": 0, "target": 0}, {"source": (0, 1), "target": (0, 1)}
)


def anatomy() -> np.ndarray:
    """Slices of a body of muscle with fat, two lungs and bones, which differ from each other."""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - SIZE_PX / 2
    planes = []
    for number in range(SLICES):
        plane = np.full((SIZE_PX, SIZE_PX), -1000.0)
        plane[np.hypot(x / 88, y / 76) < 1] = -100.0
        inside = np.hypot(x / 80, y / 68) < 1
        varied = 16 * np.sin(x / 11 + number) * np.cos(y / 9) * (y < 4)
        plane[inside] = (45 + varied)[inside]
        for side in (-1, 1):
            plane[np.hypot((x - side * 38) / (19 + number), (y + 26) / 26) < 1] = -840.0
        for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
            at = np.hypot(x - 68 * np.cos(angle), y - 56 * np.sin(angle))
            plane[at < 8 + number % 2] = 420.0
        planes.append(plane)
    return np.stack(planes)


BODY = anatomy()


def noise(seed: int, sd_hu: float = 8.0, grain_px: float = 0.5) -> np.ndarray:
    white = np.random.default_rng(seed).normal(size=BODY.shape)
    grained = ndimage.gaussian_filter(white, (0, grain_px, grain_px))
    return np.asarray(sd_hu * grained / grained.std())


def scan(added: np.ndarray, blur_px: float = 1.0) -> CTVolume:
    smooth = ndimage.gaussian_filter(BODY, (0, blur_px, blur_px))
    return make_volume(np.clip(smooth + added, -2000, 3000).astype(np.float32), pixel_mm=1.6)


TARGET, REPEAT = scan(noise(1)), scan(noise(2))
SOURCE = scan(noise(3, 30.0, 0.3), 0.6)


def judged(
    harmonized: CTVolume, source: CTVolume = SOURCE, settings: EvaluationSettings = FAST
) -> Evaluation:
    evaluation = evaluate([harmonized], [TARGET], [source], settings)
    return replace(evaluation, guards=(INSIDE,), independence=UNKNOWN_TO_THE_MODEL)


@pytest.fixture(scope="module")
def repeat() -> Evaluation:
    return judged(REPEAT, settings=FULL)


def tile_of(evaluation: Evaluation, key: str) -> Tile:
    (tile,) = [tile for tile in evaluation.scorecard.tiles if tile.key == key]
    return tile


def test_a_retest_passes_all_tiles(repeat: Evaluation) -> None:
    statuses = {tile.key: (tile.status, tile.reason) for tile in repeat.scorecard.tiles}
    assert {status for status, _ in statuses.values()} == {"pass"}, statuses
    assert repeat.scorecard.headline.startswith("Pass")


def moved(hu: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.shift(hu, (0, 0.0, 0.5), order=3, mode="nearest"))


@pytest.mark.parametrize(
    ("key", "spoilt", "words"),
    [
        ("ct_numbers", REPEAT.hu + np.where(BODY > 300, 9.0, 0.0), "bone was"),
        ("ct_numbers", REPEAT.hu - np.where(BODY < -500, 9.0, 0.0) * (BODY > -900), "lung was"),
        ("resolution", scan(noise(2), 1.3).hu, "less sharp"),
        ("noise_level", scan(noise(2, 10.5)).hu, "more noise"),
        ("noise_texture", scan(noise(2, grain_px=0.3)).hu, "finer noise"),
        ("geometry", moved(REPEAT.hu), "px from the source"),
    ],
)
def test_a_planted_fault_fails_its_tile(key: str, spoilt: np.ndarray, words: str) -> None:
    evaluation = judged(replace(REPEAT, hu=spoilt.astype(np.float32)))
    tile = tile_of(evaluation, key)
    assert tile.status == "fail", tile
    assert words in tile.reason
    assert evaluation.scorecard.status == "fail"


def test_one_patch_of_noise_is_not_enough() -> None:
    sides = [volume.select([0]) for volume in (REPEAT, TARGET, SOURCE)]
    evaluation = evaluate(sides[:1], sides[1:2], sides[2:], FAST)
    assert {each.n_regions for each in evaluation.physics.noise.values()} == {1}
    for key in ("noise_level", "noise_texture"):
        tile = tile_of(evaluation, key)
        assert (tile.status, "too few places" in tile.reason) == ("not enough data", True)


def test_images_without_noise_are_reported() -> None:
    flat = replace(TARGET, hu=np.where(BODY > -900, 0, -1000).astype(np.float32))
    evaluation = evaluate([flat], [flat], None, FAST)
    json.dumps(metrics(evaluation), allow_nan=False)
    tiles = [tile_of(evaluation, key) for key in ("noise_level", "noise_texture", "resolution")]
    assert {tile.status for tile in tiles} == {"not enough data"}
    assert "nan" not in " ".join(tile.value + tile.target for tile in tiles)


def test_a_tissue_that_was_made_worse_never_passes() -> None:
    near = replace(SOURCE, hu=SOURCE.hu.copy())
    worse = replace(REPEAT, hu=(REPEAT.hu + np.where(BODY > 300, 1.5, 0.0)).astype(np.float32))
    tile = tile_of(judged(worse, near), "ct_numbers")
    assert tile.status == "attention"
    assert "bone was" in tile.reason


def test_all_tissues_outside_are_named_the_worst_first() -> None:
    shifted = REPEAT.hu + np.where(BODY > 300, 7.0, 0.0) + np.where(BODY < -500, 2.7, 0.0)
    tile = tile_of(judged(replace(REPEAT, hu=shifted.astype(np.float32))), "ct_numbers")
    assert tile.status == "attention"
    assert 0 <= tile.reason.index("bone was") < tile.reason.index("lung was")


def test_a_tissue_of_few_pixels_is_named_and_not_judged(repeat: Evaluation) -> None:
    off = Resampled(-9.0, np.linspace(-10.0, -8.0, 200))
    few = TissueBias(-9.0, 9.0, 41, off)
    physics = repeat.physics
    bias = {side: {**tissues, "fat": few} for side, tissues in physics.bias.items()}
    tile = tile_of(replace(repeat, physics=replace(physics, bias=bias)), "ct_numbers")
    assert tile.status == "pass"
    assert "fat not judged (41 pixels, of 400 needed)" in tile.value


def test_the_features_tile_shows_why_an_interval_does_not_pass(repeat: Evaluation) -> None:
    tile = tile_of(repeat, "features")
    assert re.match(r"mean concordance \d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)", tile.value)
    assert tile.tolerance.startswith("at least 0.700")


def elsewhere(volume: CTVolume) -> CTVolume:
    """The same images half a meter further up, as another series."""
    positions_mm = volume.geometry.positions_mm + np.array([0.0, 0.0, 500.0])
    return replace(volume, geometry=replace(volume.geometry, positions_mm=positions_mm))


def test_errors_of_two_series_do_not_cancel() -> None:
    up, down = (
        replace(REPEAT, hu=(REPEAT.hu + np.where(BODY > 300, shift, 0.0)).astype(np.float32))
        for shift in (4.0, -4.0)
    )
    sides = ([scan, elsewhere(scan)] for scan in (TARGET, SOURCE))
    evaluation = evaluate([up, elsewhere(down)], *sides, FAST)
    tile = tile_of(evaluation, "ct_numbers")
    assert abs(evaluation.physics.bias["harmonized"]["bone"].mean_hu or 9.0) < 1
    assert tile.status == "attention"
    assert "bone of series" in tile.reason


def test_a_series_without_a_partner_is_not_signed() -> None:
    sides = ([REPEAT, elsewhere(REPEAT)], [TARGET], [SOURCE, elsewhere(SOURCE)])
    tile = tile_of(evaluate(*sides, FULL), "features")
    assert (tile.status, tile.reason) == (
        "not enough data", "1 harmonized series pair with no target series",
    )  # fmt: skip


def test_three_regions_do_not_judge_features() -> None:
    tile = tile_of(judged(REPEAT), "features")
    assert (tile.status, tile.reason) == ("not enough data", "3 regions, of 8 needed; give more")


def test_features_further_from_the_target_than_before_fail() -> None:
    tile = tile_of(judged(SOURCE, REPEAT, FULL), "features")
    assert (tile.status, tile.reason) == (
        "fail", "features agree less with the target's than before",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("guards", "status", "words"),
    [
        ((), "not enough data", "no guard judged these scans"),
        ((replace(INSIDE, scan=""),), "not enough data", "no guard judged 1 of 1"),
        ((replace(INSIDE, scan="unknown"),), "not enough data", "no guard judged 1 of 1"),
        ((replace(INSIDE, scan="out_of_domain"),), "attention", "unlike what the model knows"),
        ((replace(INSIDE, scan="unlike"),), "attention", "unlike what the model knows"),
        ((replace(INSIDE, scan="at_target"),), "attention", "like the target already"),
        ((replace(INSIDE, judged=None),), "not enough data", "the slices of 1 of 1 scans"),
        ((INSIDE, replace(INSIDE, judged=0)), "not enough data", "the slices of 1 of 2 scans"),
        ((replace(INSIDE, changed_limits=("kernel=off",)),), "attention", "--guard kernel=off"),
        ((replace(INSIDE, flagged=(FlaggedSlice(1, 0.0, ""),)),), "fail", "1 slice was"),
        (
            (replace(INSIDE, judged=50, flagged=(FlaggedSlice(1, 0.0, ""),)),),
            "attention",
            "1 slice was changed more",
        ),
        (
            (GuardRecord("1", "", None, (), None, (FlaggedSlice(1, 0.0, ""),)),),
            "attention",
            "1 slice was changed more",
        ),
    ],
)
def test_the_guards_tile_tells_what_they_found(
    repeat: Evaluation, guards: tuple[GuardRecord, ...], status: Status, words: str
) -> None:
    evaluation = replace(repeat, guards=guards)
    tile = tile_of(evaluation, "guards")
    assert tile.status == status
    assert words in tile.reason
    assert evaluation.scorecard.status != "pass"


def test_the_other_direction_fails(repeat: Evaluation) -> None:
    tile = tile_of(replace(repeat, wrong_direction="1 of 1 series turned"), "guards")
    assert (tile.status, tile.reason) == ("fail", "1 of 1 series turned")


def test_doubtful_roles_are_never_green(repeat: Evaluation) -> None:
    tile = tile_of(replace(repeat, doubtful_roles="the retest is no retest"), "guards")
    assert (tile.status, tile.reason) == ("attention", "the retest is no retest")


def test_scans_that_the_model_learned_from_fail(repeat: Evaluation) -> None:
    learned = Independence({"source": 0, "target": 1}, {"source": (0, 1), "target": (1, 1)})
    assert tile_of(replace(repeat, independence=learned), "independence").status == "fail"
    unknown = tile_of(replace(repeat, independence=None), "independence")
    assert (unknown.status, unknown.value) == ("not enough data", "unknown")


def test_without_the_source_nobody_knows_whether_the_model_learned_from_it(
    repeat: Evaluation,
) -> None:
    target_alone = Independence({"target": 0}, {"target": (0, 1)})
    tile = tile_of(replace(repeat, independence=target_alone), "independence")
    assert (tile.status, "--source" in tile.reason) == ("not enough data", True)


def test_nothing_is_signed_of_scans_that_do_not_pair() -> None:
    other = replace(TARGET, geometry=replace(TARGET.geometry, frame_of_reference="9.9"))
    evaluation = evaluate([REPEAT], [other], [SOURCE], FAST)
    statuses = {tile.key: tile.status for tile in evaluation.scorecard.tiles}
    assert statuses["features"] == statuses["ct_numbers"] == "not enough data"
    assert statuses["noise_level"] == "pass"  # noise needs no pairs
    assert evaluation.scorecard.status in ("not enough data", "attention")


def test_without_pairs_and_source_the_reason_is_what_to_give() -> None:
    evaluation = evaluate([REPEAT], [TARGET], None, FAST.model_copy(update={"pairing": "off"}))
    for key in ("noise_level", "noise_texture", "resolution", "geometry"):
        tile = tile_of(evaluation, key)
        assert (tile.status, "give the source" in tile.reason) == ("not enough data", True), tile


@pytest.mark.parametrize(
    ("n_moved", "status"), [(0, "pass"), (2, "pass"), (12, "attention"), (40, "fail")]
)
def test_some_moved_slices_are_seen_although_most_are_in_place(
    repeat: Evaluation, n_moved: int, status: Status
) -> None:
    slices_px = np.zeros((40, 2))
    slices_px[:n_moved, 1] = 1.0
    median_px = float(np.median(slices_px[:, 1]))
    moved = Alignment((0.0, median_px), median_px, 1.0, 40, slices_px)
    physics = replace(repeat.physics, shift={"moved": moved})
    tile = tile_of(replace(repeat, physics=physics), "geometry")
    assert tile.status == status, tile
    assert ("12 of 40 slices" in tile.reason) == (status == "attention")


def test_series_of_another_pixel_size_are_not_passed_over(repeat: Evaluation) -> None:
    """Noise and edges are measured in series of one pixel size alone."""
    (slices,) = repeat.shared
    geometry = slices.harmonized.geometry
    finer = replace(geometry, pixel_mm=(1.2, 1.2))
    other = replace(slices, harmonized=replace(slices.harmonized, geometry=finer))
    evaluation = replace(repeat, shared=(slices, other))
    for key in ("noise_level", "noise_texture", "resolution"):
        tile = tile_of(evaluation, key)
        assert tile.status == "not enough data"
        assert "1 of 2 series have another pixel size" in tile.reason
