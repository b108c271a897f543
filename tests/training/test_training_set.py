"""What a training set holds is counted, told and, where a model would be wrong for it, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from cvsct.core.volume import Acquisition, ScanFacts
from cvsct.guard.training_set import check_manufacturers
from cvsct.io.read import find_series
from cvsct.model.bundle import Bundle
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.plan import SCALES, plan
from cvsct.training.data.census import Census
from tests.conftest import phantom_hu
from tests.support.commands import Run
from tests.support.dicom_files import Change, write_series
from tests.support.nifti_files import write_converted


def body(
    folder: Path, seed: int, blur_px: float = 0.0, slices: int = 4, change: Change | None = None
) -> Path:
    """A series of a trunk."""
    stored = (phantom_hu(seed, blur_px, slices) + 1024).astype("<u2")
    series = f"1.7.{seed}.{int(blur_px * 10)}"
    return write_series(folder, stored=stored, series=series, change=change)


def water(folder: Path, seed: int = 0, hu: float = 0.0) -> Path:
    """A homogeneous phantom in air."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : 200 * 1j, -1 : 1 : 200 * 1j]
    inside = x**2 + y**2 < 0.6
    slices = np.where(inside, hu, -1000.0) + rng.normal(0, 15, (4, 200, 200))
    stored = np.maximum(np.rint(slices) + 1024, 0).astype("<u2")
    return write_series(folder, stored=stored, series=f"1.8.{seed}.{int(abs(hu))}")


def tell(**attributes: Any) -> Change:
    """Header attributes of every slice."""

    def change(dataset: Any, _: int) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return change


def moved(dataset: Any, index: int) -> None:
    if index == 2:
        dataset.ImagePositionPatient = [-100, -120, 12.5]


Train = Callable[..., tuple[int, str]]


@pytest.fixture
def train(run: Run, tmp_path: Path) -> Train:
    """Train on `a` and `b`; gives exit code and what was said."""

    def call(*more: str, method: str = "histogram") -> tuple[int, str]:
        words = ("--source", tmp_path / "a", "--target", tmp_path / "b", "--out", tmp_path / "m")
        code, _, err = run("train", method, *words, *more)
        assert (code == 0) == (tmp_path / "m").exists()
        return code, err

    return call


def census(model: Path) -> dict[str, Any]:
    found = Bundle.read(model).training["census"]
    assert isinstance(found, dict)
    return found


def test_what_was_learned_from_is_printed_and_written_to_the_card(
    train: Train, tmp_path: Path
) -> None:
    body(tmp_path / "a" / "1", 1)
    body(tmp_path / "a" / "2", 2, change=tell(ConvolutionKernel="K2", PatientID="P2"))
    body(tmp_path / "b", 3, 0.8, slices=12)
    code, err = train()
    assert code == 0, err
    lines = [line.split() for line in err.splitlines() if line.startswith(("source", "target"))]
    assert [" ".join(line) for line in lines] == [
        "source Maker Scanner K1 120 5 0.7 1 1 4",
        "source Maker Scanner K2 120 5 0.7 1 1 4",
        "target Maker Scanner K1 120 5 0.7 1 1 12",
    ]
    rows = census(tmp_path / "m")["scans"]
    assert [(row["side"], row["kernel"], row["slices"]) for row in rows] == [
        ("source", "K1", "4"), ("source", "K2", "4"), ("target", "K1", "12"),
    ]  # fmt: skip
    mixed = "the source mixes kernels K1 and K2: the model learns their mean; give one"
    few = "the source holds only 8 slices; the model will know little but these"
    card = (tmp_path / "m" / "card.md").read_text()
    assert "## Scans it learned from" in card
    for warning in (mixed, few):
        assert f"note: {warning}\n" in err
        assert f"- {warning}\n" in card
    assert "P2" not in card
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    assert manifest["figures"]["census"]["warnings"] == [few, mixed]


def facts(**changed: Any) -> ScanFacts:
    made = Acquisition(
        changed.pop("maker", "Maker"), changed.pop("model", "One"), changed.pop("kernel", "K"),
        changed.pop("kvp", 120.0),
    )  # fmt: skip
    about: dict[str, Any] = {
        "series_uid": "1", "shape": (20, 64, 64), "pixel_mm": (0.7, 0.7), "thickness_mm": 2.0,
        "patient": "x", **changed,
    }  # fmt: skip
    return ScanFacts(acquisition=made, **about)


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ([facts(shape=(1, 64, 64))], [facts()], "the source holds 1 slice; "),
        ([facts()], [facts(shape=(9, 64, 64))], "the target holds only 9 slices"),
        ([facts(kernel="B70f"), facts(kernel="B40f")], [facts()], "kernels B40f and B70f"),
        ([facts()], [facts(model="One"), facts(model="Two")], "scanners Maker One and Maker Two"),
        ([facts(kvp=80.0), facts()], [facts()], "tube voltages of 80 and 120 kVp"),
        ([facts(kvp=80.0)], [facts()], "source 80 kVp, target 120 kVp"),
        ([facts(thickness_mm=1.0), facts()], [facts()], "slices of 1 to 2 mm"),
        ([facts(thickness_mm=4.0)], [facts()], "source 4 mm, target 2 mm (medians)"),
        ([facts(maker="", model="", kernel="", kvp=0.0)], [facts()], "1 of 1 series of the source"),
    ],
)
def test_what_may_spoil_a_model_is_told(
    source: list[ScanFacts], target: list[ScanFacts], says: str
) -> None:
    (warning,) = Census.of(source, target).warnings
    assert says in warning


def test_sound_sides_give_no_warning_and_many_groups_few_lines() -> None:
    same = [facts(kernel="B 70f"), facts(kernel="b70f"), facts(thickness_mm=3.9)]
    assert Census.of(same[:2], [facts(), same[2]]).warnings == ()
    many = [facts(kernel=f"K{i}") for i in range(30)]
    found = Census.of(many, [facts()])
    assert len(found.rows) == 12 + 1
    assert sum(int(row[-1]) for row in found.rows[:-1]) == 30 * 20


@pytest.mark.parametrize("method", ["input", "histogram", "spectrum"])
@pytest.mark.parametrize("hu", [0.0, 40.0])
def test_a_phantom_beside_patients_is_refused_for_any_method(
    train: Train, tmp_path: Path, method: str, hu: float
) -> None:
    water(tmp_path / "a", hu=hu)
    body(tmp_path / "b", 3, 0.8)
    code, err = train(method=method)
    assert code == 1
    assert "tissue of source and target differs by" in err
    assert "--allow phantom" in err
    code, err = train("--allow", "phantom", method="histogram")
    assert code == 0, err
    (warning,) = (each for each in census(tmp_path / "m")["warnings"] if "tissue" in each)
    assert warning.endswith("(allowed)")
    assert f"note: {warning}" in err


def test_phantoms_of_two_scanners_are_alike_and_may_lie_among_patients(
    train: Train, tmp_path: Path
) -> None:
    water(tmp_path / "a" / "w", 1)
    water(tmp_path / "b" / "w", 2)
    assert train()[0] == 0
    body(tmp_path / "a" / "p", 1)
    body(tmp_path / "b" / "p", 2)
    (tmp_path / "m").rename(tmp_path / "first")
    assert train()[0] == 0


def test_phantoms_of_unlike_material_have_nothing_in_common(train: Train, tmp_path: Path) -> None:
    water(tmp_path / "a", 1)
    water(tmp_path / "b", 2, 100.0)
    code, err = train()
    assert code == 1
    assert "tissue of source and target differs by" in err


def test_a_side_without_air_and_fat_is_no_ct(train: Train, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = np.rint(rng.normal(1090, 15, (4, 200, 200))).astype("<u2")
    write_series(tmp_path / "a", stored=stored, series="1.8.9")
    body(tmp_path / "b", 3)
    code, err = train("--allow", "phantom,derived")
    assert code == 1
    assert "neither air nor fat" in err


def test_two_manufacturers_in_a_domain_are_refused(train: Train, tmp_path: Path) -> None:
    body(tmp_path / "a" / "1", 1, change=tell(Manufacturer="GE MEDICAL SYSTEMS"))
    body(tmp_path / "a" / "2", 2, change=tell(Manufacturer="SIEMENS"))
    body(tmp_path / "b", 3, 0.8)
    code, err = train()
    assert code == 1
    assert "the source holds scans of 2 manufacturers (GE MEDICAL SYSTEMS, SIEMENS)" in err
    code, err = train("--skip-refused")
    assert code == 1, "which of the two to leave out, nobody can tell"
    assert train("--allow", "mixed-scanners")[0] == 0


def test_one_manufacturer_under_two_names_is_one() -> None:
    names = ("GE MEDICAL SYSTEMS", "GE Healthcare", "")
    assert list(check_manufacturers("source", [facts(maker=name) for name in names])) == []
    assert (
        len(list(check_manufacturers("source", [facts(maker="Philips"), facts(maker="SIEMENS")])))
        == 1
    )


def test_an_unknown_word_is_answered_with_the_choices(train: Train, tmp_path: Path) -> None:
    body(tmp_path / "a", 1)
    body(tmp_path / "b", 2)
    code, err = train("--allow", "phantoms")
    assert code == 2
    assert "choose from phantom, derived, mixed-scanners" in err


@pytest.mark.parametrize(
    "form", ["dicom", pytest.param("keep-equipment", marks=pytest.mark.slow), "nifti"]
)
def test_what_this_program_made_is_left_out_or_allowed(
    run: Run, train: Train, tmp_path: Path, form: str
) -> None:
    body(tmp_path / "a" / "s", 1)
    body(tmp_path / "b", 2, 0.8)
    assert train()[0] == 0
    (tmp_path / "m").rename(tmp_path / "model")
    source = tmp_path / "a" / "s"
    if form == "nifti":
        source = write_converted(source, tmp_path / "scan.nii.gz")
    more = ["--keep-equipment"] if form == "keep-equipment" else []
    code, _, err = run("harmonize", source, "--model", tmp_path / "model", "--guard", "off",
                       "--out", tmp_path / "derived", *more)  # fmt: skip
    assert code == 0, err
    if form == "nifti":
        (made,) = (tmp_path / "derived").rglob("*.nii.gz")
        made.rename(tmp_path / "a" / "derived.nii.gz")
        source.rename(tmp_path / "a" / "scan.nii.gz")
        for file in (tmp_path / "a" / "s").iterdir():
            file.unlink()
    else:
        (tmp_path / "derived").rename(tmp_path / "a" / "derived")
    code, err = train()
    assert code == 1
    assert "made by this program, not by a scanner" in err
    code, err = train("--skip-refused")
    assert code == 0, err
    assert "left out: source, series" in err
    assert [row["series"] for row in census(tmp_path / "m")["scans"]] == ["1", "1"]
    assert len(census(tmp_path / "m")["left_out"]) == 1
    (tmp_path / "m").rename(tmp_path / "second")
    code, err = train("--allow", "derived")
    assert code == 0, err
    assert "1 of 2 series of the source were made by this program (allowed)" in err


def test_all_refusals_are_told_at_once_and_the_sound_series_are_learned_from(
    train: Train, tmp_path: Path
) -> None:
    for seed in range(5):
        body(tmp_path / "a" / str(seed), seed, change=moved if seed in (1, 3) else None)
    cut = sorted((tmp_path / "a" / "4").iterdir())[1]
    dataset = dcmread(cut)
    dataset.PixelData = dataset.PixelData[:1000]
    dataset.save_as(cut)
    body(tmp_path / "b", 9, 0.8)
    numbers = {each.series_uid: i for i, each in enumerate(find_series(tmp_path / "a"), 1)}
    code, err = train()
    assert code == 1
    for seed in (1, 3, 4):
        assert f"source, series {numbers[f'1.7.{seed}.0']}: " in err
    assert "--skip-refused" in err
    code, err = train("--skip-refused")
    assert code == 0, err
    assert census(tmp_path / "m")["scans"][0]["series"] == "2"
    assert len(census(tmp_path / "m")["left_out"]) == 3
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    assert manifest["inputs"]["source"] == ["1.7.0.0", "1.7.2.0"]
    assert manifest["config"]["skip_refused"] is True


def test_damage_that_only_pixels_show_is_told_of_all_series(train: Train, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        body(tmp_path / "a" / str(seed), seed, slices=8)
    for seed in (0, 2):
        file = sorted((tmp_path / "a" / str(seed)).iterdir())[2]
        dataset = dcmread(file)
        dataset.PixelData = dataset.PixelData[:1000]
        dataset.save_as(file)
    body(tmp_path / "b", 9, 0.8)
    code, err = train()
    assert code == 1
    assert "source, series 1: " in err
    assert "source, series 3: " in err
    assert "Traceback" not in err
    code, err = train("--skip-refused")
    assert code == 0, err
    assert census(tmp_path / "m")["scans"][0]["series"] == "1"


def test_a_side_of_refused_series_alone_cannot_be_skipped(train: Train, tmp_path: Path) -> None:
    body(tmp_path / "a", 1, change=moved)
    body(tmp_path / "b", 2)
    code, err = train("--skip-refused")
    assert code == 1
    assert "no series of the source is left" in err


@pytest.mark.parametrize("scale", sorted(SCALES))
def test_the_benchmarks_own_scans_are_of_one_maker_a_side(scale: str) -> None:
    """At every scale; that their tissue is alike is seen where they are simulated."""
    sides: dict[str, list[ScanFacts]] = {}
    for scan in plan(scale, 0, parts=("train", "paired", "kernels/train")):
        maker = load_definition(scan.scanner).manufacturer
        for series in scan.series():
            sides.setdefault(str(Path(series.folder).parent), []).append(facts(maker=maker))
    assert len(sides) == 6
    assert [
        found for side, some in sides.items() for found in check_manufacturers(side, some)
    ] == []
