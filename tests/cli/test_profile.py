"""`cvsct profile`, and `cvsct train` with profiles for sides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cvsct.api.profile import bundled_profiles, load_profile
from cvsct.core.errors import UsageError
from cvsct.model.bundle import Bundle
from cvsct.profile.privacy import MIN_PATCHES, MIN_PATIENTS
from tests.conftest import phantom_hu
from tests.support.commands import Run
from tests.support.dicom_files import write_series
from tests.support.profiles import write_patient


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites of three patients each, sharp and soft."""
    root = tmp_path_factory.mktemp("sites")
    for site, blur_px, first in (("sharp", 0.0, 20), ("soft", 0.8, 30)):
        for patient in range(3):
            hu = phantom_hu(first + patient, blur_px, slices=4)
            write_patient(root / site / str(patient), first + patient, hu, f"{site}{patient}")
    return root


@pytest.fixture(scope="module")
def profiles(sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Profiles of both sites."""
    import cvsct

    folder = tmp_path_factory.mktemp("profiles")
    for site in ("sharp", "soft"):
        cvsct.fit_profile(sites / site, folder / f"{site}.profile")
    return folder


def test_a_profile_is_measured_and_its_card_printed(sites: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "a.profile"
    code, said, _ = run("profile", sites / "sharp", "--out", out)
    assert code == 0
    assert said.startswith("Profile of a CT scanner")
    for word in ("Not proven anonymous", "patients 3, series 3, slices 12", "3 patients", str(out)):
        assert word in said
    assert run("profile", "--show", out)[1].split("\n\n")[0] == said.split("\n\n")[0]


def test_fewer_than_three_patients_need_a_word_and_the_card_begins_with_it(
    scans: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "one.profile"
    with monkeypatch.context() as patched:
        patched.setattr("cvsct.api.profile.measure_profile", None)  # headers tell it before
        code, _, err = run("profile", scans / "sharp", "--out", out)
    assert code == 1
    assert "of 1 patient, of 3 needed" in err
    assert not out.exists()
    code, said, _ = run("profile", scans / "sharp", "--out", out, "--allow-few-patients")
    assert code == 0
    assert said.startswith("CONTAINS SUMS OF FEWER THAN 3 PATIENTS")


def test_merged_profiles_count_both(profiles: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "merged.profile"
    words = [
        word for name in ("sharp", "soft") for word in ("--merge", profiles / f"{name}.profile")
    ]
    code, said, _ = run("profile", *words, "--out", out)
    assert code == 0
    assert "patients 6, series 6, slices 24" in said
    assert load_profile(out).n_patients == 6


@pytest.mark.parametrize("method", ["spectrum", "spectrum-plain", "band-energy"])
def test_a_model_from_profiles_maps_as_one_from_images(
    method: str, sites: Path, profiles: Path, tmp_path: Path, run: Run
) -> None:
    code, said, err = run(
        "train", method, "--source", profiles / "sharp.profile", "--target",
        profiles / "soft.profile", "--out", tmp_path / "from_profiles",
    )  # fmt: skip
    assert code == 0, err
    assert "source (profile)" in said + err
    code, _, err = run(
        "train", method, "--source", sites / "sharp", "--target", sites / "soft",
        "--out", tmp_path / "from_images",
    )  # fmt: skip
    assert code == 0, err
    a, b = (Bundle.read(tmp_path / name) for name in ("from_profiles", "from_images"))
    f = b.weights["frequencies_per_mm"]
    shown = f <= 0.75  # beyond, the softer side has nothing but rounding
    gains = (bundle.weights["log_gain"][shown] for bundle in (a, b))
    np.testing.assert_allclose(*gains, atol=0.06)  # what the sums of few patients are worth
    assert a.guard["calibrated_on"]["a2b"].startswith("no image")
    assert "learned" not in a.guard
    harmonized = tmp_path / "harmonized"
    code, _, err = run(
        "harmonize", sites / "sharp" / "0", "--model", tmp_path / "from_profiles", "--out",
        harmonized,
    )  # fmt: skip
    assert code == 0, err
    guard = json.loads((harmonized / "manifest.json").read_text())["figures"]["series"][0]["guard"]
    assert guard["scan"]["kind"] == "in_domain"


def test_a_scan_of_another_kernel_is_refused_by_a_model_from_profiles(
    profiles: Path, sites: Path, tmp_path: Path, run: Run
) -> None:
    run("train", "spectrum", "--source", profiles / "sharp.profile", "--target",
        profiles / "soft.profile", "--out", tmp_path / "model")  # fmt: skip
    hu = phantom_hu(50, 2.0, slices=4)
    write_series(tmp_path / "blurred", stored=(hu + 1024).astype("<u2"), series="1.2.50")
    code, _, err = run("harmonize", tmp_path / "blurred", "--model", tmp_path / "model",
                       "--out", tmp_path / "out")  # fmt: skip
    assert code == 1
    assert "sharpness of noise" in err


def test_one_side_may_be_scans(sites: Path, profiles: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run(
        "train", "spectrum", "--source", sites / "sharp", "--target", profiles / "soft.profile",
        "--out", tmp_path / "model",
    )  # fmt: skip
    assert code == 0, err
    bundle = Bundle.read(tmp_path / "model")
    assert bundle.guard["calibrated_on"]["a2b"].endswith("slices of the scans it learned from")
    assert bundle.guard["calibrated_on"]["b2a"].startswith("no image")
    for scan, learned in (("sharp/0", True), ("soft/0", None)):
        out = tmp_path / "harmonized" / scan
        reverse = [] if learned else ["--reverse"]
        out.parent.mkdir(parents=True, exist_ok=True)
        code, _, err = run("harmonize", sites / scan, "--model", tmp_path / "model", "--out", out,
                           *reverse)  # fmt: skip
        assert code == 0, err
        guard = json.loads((out / "manifest.json").read_text())["figures"]["series"][0]["guard"]
        assert bool(guard["scan"].get("learned_slices")) is bool(learned)
        assert ("learned_slices" in guard["scan"]) is bool(learned)


def test_networks_say_that_they_need_images(profiles: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run(
        "train", "cyclegan", "--source", profiles / "sharp.profile", "--target",
        profiles / "soft.profile", "--out", tmp_path / "model",
    )  # fmt: skip
    assert code == 2
    assert (
        "learns from images, not from a profile; spectrum, spectrum-plain, band-energy can" in err
    )


def test_other_patches_than_a_profiles_are_refused(
    profiles: Path, tmp_path: Path, run: Run
) -> None:
    code, _, err = run(
        "train", "spectrum", "--source", profiles / "sharp.profile", "--target",
        profiles / "soft.profile", "--out", tmp_path / "model", "--set", "patch_mm=50",
    )  # fmt: skip
    assert code == 1
    assert "patch_mm=40" in err


def test_a_scanner_is_compared_with_its_profile(sites: Path, profiles: Path, run: Run) -> None:
    then = profiles / "sharp.profile"
    code, said, _ = run("profile", sites / "soft", "--compare", then, "--json")
    assert code == 0
    result = json.loads(said)
    assert result["constant"] is None
    kept = {figure["name"]: figure["kept"] for figure in result["figures"]}
    assert kept["mean frequency of noise"] is False
    code, said, _ = run("profile", sites / "sharp", "--compare", then)
    first, *_ = said.splitlines()
    assert first == (
        "whether the scanner has changed cannot be told: 3 patients in the profile and 3 today, "
        "of 8 needed on each side; measure more"
    )
    assert "CHANGED" not in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "give SCANS"),
        (("SCANS",), "--out NAME.profile"),
        (("SCANS", "--out", "x.txt"), "ends in .profile"),
        (("nowhere", "--out", "x.profile"), "nowhere: no such file or folder"),
        (("nowhere", "--out", "x.txt"), "nowhere: no such file or folder"),
        (("SCANS", "--show", "x.profile"), "give SCANS --out"),
        (("--compare", "siemens-br40-3mm"), "give the SCANS of today"),
        (("--merge", "ONE", "--out", "x.profile"), "at least two"),
    ],
)
def test_words_that_do_not_go_together(
    words: tuple[str, ...], expected: str, scans: Path, profiles: Path, run: Run
) -> None:
    places = {"SCANS": scans / "sharp", "ONE": profiles / "sharp.profile"}
    code, _, err = run("profile", *(places.get(word, word) for word in words))
    assert code == 2
    assert expected in err


def test_an_unknown_name_is_answered_with_the_nearest(run: Run) -> None:
    code, _, err = run("profile", "--show", "siemens-br40-5mm")
    assert code == 1
    assert "did you mean 'siemens-br40-3mm'?" in err


def test_a_dry_run_writes_nothing(sites: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "a.profile"
    code, said, _ = run("profile", sites / "sharp", "--out", out, "--dry-run")
    assert code == 0
    assert "nothing was written" in said
    assert not out.exists()


def test_a_profile_that_is_there_is_not_replaced(profiles: Path, sites: Path, run: Run) -> None:
    code, _, err = run("profile", sites / "sharp", "--out", profiles / "sharp.profile")
    assert code == 2
    assert "sharp.profile" in err


@pytest.mark.parametrize("name", bundled_profiles())
def test_bundled_profiles_have_no_sum_of_few(name: str, tmp_path: Path, run: Run) -> None:
    profile = load_profile(name)
    assert not profile.few_patients
    for part in profile.moments().values():
        held = part.counts > 0
        assert (part.patients[held] >= MIN_PATIENTS).all()
    assert (profile.texture.body.counts[profile.texture.body.counts > 0] >= MIN_PATCHES).all()
    picture = tmp_path / f"{name}.png"
    assert run("profile", "--show", name, "--out", picture)[0] == 0
    assert picture.stat().st_size > 10_000


def test_bundled_profiles_train_a_model(tmp_path: Path, run: Run) -> None:
    assert len(bundled_profiles()) == 4
    code, _, err = run("train", "spectrum", "--source", "siemens-bl64-3mm", "--target",
                       "siemens-br40-3mm", "--out", tmp_path / "model")  # fmt: skip
    assert code == 0, err
    gain = Bundle.read(tmp_path / "model").weights["noise_log_gain"]
    assert gain[24] < -0.5  # the softer kernel has less noise at .6/mm


def test_python_refuses_what_the_command_refuses(scans: Path) -> None:
    from cvsct.api.profile import fit_profile

    with pytest.raises(UsageError, match=r"ends in \.profile"):
        fit_profile(scans / "sharp", "somewhere")
