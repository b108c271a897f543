"""What `cvsct evaluate` pairs, and what it says of the scans it was given."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from cvsct.core.errors import EvaluationError, TrainingError
from cvsct.core.pairing import are_other_patients, pair_volumes
from cvsct.core.volume import UNNAMED, CTVolume, HUWindow
from cvsct.evaluation.report.write import EvaluationSettings, evaluate
from cvsct.io.dicom.write import write_derived
from cvsct.io.nifti.write import NiftiWriter
from cvsct.io.provenance import check_roles, origin_of
from cvsct.io.read import find_series, read_series
from cvsct.io.series import open_series
from cvsct.training.data.pairs import PairSampler
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.store import open_store
from tests.conftest import make_volume, phantom_hu
from tests.support.commands import Run
from tests.support.dicom_files import DERIVATION, only, write_series
from tests.support.nifti_files import write_converted
from tests.support.structure_sets import rings, save_structures

SLICES = 4
FAST = EvaluationSettings(rois=4, roi_px=16, bootstrap=50, spectrum_px=32, examples=0)


def scanned(folder: Path, seed: int, blur_px: float, **about: Any) -> Path:
    """A phantom's scan; `about` are attributes of every slice, `None` for absent ones."""

    def change(ds: Dataset, _: int) -> None:
        for keyword, value in about.items():
            if value is None:
                del ds[keyword]
            else:
                setattr(ds, keyword, value)

    stored = (phantom_hu(seed, blur_px, SLICES) + 1024).astype("<u2")
    series = about.pop("SeriesInstanceUID", f"1.2.{seed}.{int(10 * blur_px)}")
    return write_series(folder, stored=stored, change=change, series=series)


def harmonized(folder: Path, source: Path, target: str = "Maker Scanner, kernel K2") -> Path:
    """The source as a derived series, a little smoother."""
    volume = only(source)
    write_derived(volume, volume.hu * 0.99, folder, replace(DERIVATION, target=target))
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`A` and `B`: one body, two kernels. `C`: another body. `H`: A harmonized."""
    root = tmp_path_factory.mktemp("tree")
    scanned(root / "A", 3, 0.0)
    scanned(root / "B", 3, 0.8, ConvolutionKernel="K2")
    scanned(root / "C", 8, 0.8, ConvolutionKernel="K2")
    harmonized(root / "H", root / "A")
    return root


def call(run: Run, out: Path, *arguments: object) -> tuple[int, dict[str, Any], str]:
    """`cvsct evaluate`: exit code, metrics, what the terminal showed beside the result."""
    code, _, err = run("evaluate", *arguments, "--rois", 3, "--workers", 1, "--out", out)
    path = out / "metrics.json"
    return code, json.loads(path.read_text()) if path.exists() else {}, err


def test_two_patients_are_not_paired_and_the_evaluation_goes_on(
    run: Run, tree: Path, tmp_path: Path
) -> None:
    other = scanned(tmp_path / "B", 3, 0.8, PatientID="P2", FrameOfReferenceUID=None)
    arguments = ("--harmonized", tree / "H", "--target", other, "--source", tree / "A")
    code, metrics, err = call(run, tmp_path / "E", *arguments)
    assert code == 0, err
    assert metrics["paired"] is False
    assert metrics["psnr_db"] is None
    assert metrics["unpaired_because"] == "source and target show different patients"
    assert "note: not paired: source and target show different patients" in err
    assert "different patients" in (tmp_path / "E" / "report.html").read_text()
    code, metrics, err = call(run, tmp_path / "E2", *arguments, "--pair")
    assert (code, metrics["paired"]) == (0, True)
    assert "their patients differ" in err


def test_an_equal_patient_id_is_no_proof(run: Run, tree: Path, tmp_path: Path) -> None:
    """Both bodies are P1, in one frame of reference, at one place."""
    arguments = ("--harmonized", tree / "H", "--target", tree / "C", "--source", tree / "A")
    code, metrics, err = call(run, tmp_path / "E", *arguments)
    assert (code, metrics["paired"]) == (0, False)
    assert "show different bodies" in err
    assert "different bodies" in metrics["unpaired_because"]
    code, metrics, err = call(run, tmp_path / "E2", *arguments, "--pair")
    assert (code, metrics["paired"]) == (0, True)
    assert "although the source of harmonized series 1 and target series 1 show" in err
    assert any("although" in note for note in metrics["notes"])


def test_one_body_without_frames_is_paired_with_a_note(
    run: Run, tree: Path, tmp_path: Path
) -> None:
    nifti = write_converted(tree / "B", tmp_path / "b.nii.gz")
    code, metrics, err = call(
        run, tmp_path / "E", "--harmonized", tree / "H", "--target", nifti, "--source", tree / "A"
    )
    assert (code, metrics["paired"]) == (0, True), err
    assert "paired by position alone" in err
    assert any("paired by position alone" in note for note in metrics["notes"])


def test_pairing_is_switched_off_or_forced(run: Run, tree: Path, tmp_path: Path) -> None:
    arguments = ("--harmonized", tree / "H", "--target", tree / "B")
    code, metrics, err = call(run, tmp_path / "E", *arguments, "--unpaired")
    assert (code, metrics["paired"]) == (0, False)
    assert "pairing was switched off" in err
    code, _, err = call(run, tmp_path / "E2", *arguments, "--unpaired", "--pair")
    assert code == 2
    assert "exclude each other" in err
    away = scanned(tmp_path / "far", 3, 0.8, FrameOfReferenceUID="1.9.9")
    assert call(run, tmp_path / "E3", *arguments[:3], away)[1]["paired"] is False
    assert call(run, tmp_path / "E4", *arguments[:3], away, "--pair")[1]["paired"] is True

    def higher(ds: Dataset, i: int) -> None:
        ds.ImagePositionPatient = [0, 0, 902.5 + 5 * i]

    write_series(tmp_path / "up", SLICES, change=higher, series="1.2.9")
    code, _, err = call(run, tmp_path / "E5", *arguments[:3], tmp_path / "up", "--pair")
    assert code == 1
    assert "pairing cannot be forced" in err


def test_masks_of_an_unpaired_evaluation_give_a_table_of_every_patient(
    run: Run, tree: Path, tmp_path: Path
) -> None:
    target = only(tree / "C")
    mask = save_structures(
        tmp_path / "rs.dcm", target, {"GTV": rings([1], 80, 110, 9), "Lung": rings([1], 70, 60, 9)}
    )
    arguments = ("--harmonized", tree / "H", "--target", tree / "C", "--masks", mask)
    code, metrics, err = call(run, tmp_path / "E", *arguments)
    assert (code, metrics["paired"]) == (0, False)
    with (tmp_path / "E" / "features_wide.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    measured = {(row["stage"], row["region"]) for row in rows if not row["error"]}
    assert {("source", "GTV"), ("source", "Lung")} <= measured
    assert not (tmp_path / "E" / "groups.html").exists()  # without a source nothing is compared
    record = json.loads((tmp_path / "E" / "manifest.json").read_text())
    assert "features_wide.*" in record["may_identify_patients"]
    both = (*arguments, "--source", tree / "A", "--unpaired")
    code, _, err = call(run, tmp_path / "E5", *both)
    assert code == 0, err
    page = (tmp_path / "E5" / "groups.html").read_text(encoding="utf-8")
    assert "groups have 10 patients" in page
    code, metrics, _ = call(run, tmp_path / "E2", *arguments, "--pair", "--structures", "gt*")
    assert (code, metrics["n_rois"]) == (0, 1)
    code, _, err = call(run, tmp_path / "E3", *arguments[:4], "--structures", "gt*")
    assert code == 2
    code, _, err = call(run, tmp_path / "E4", *arguments, "--structures", "Heart")
    assert code == 1
    assert "choose from GTV, Lung" in err


def test_small_bodies_are_compared_without_pairs(run: Run, tmp_path: Path) -> None:
    """No patch of 64 px fits into the soft tissue: smaller ones are taken, and that is said."""
    for name, seed, who in (("A", 3, "P1"), ("B", 4, "P2")):
        stored = (phantom_hu(seed, 0.5, 3, size_px=96) + 1024).astype("<u2")

        def change(ds: Dataset, _: int, who: str = who) -> None:
            ds.PatientID = who

        write_series(tmp_path / name, stored=stored, change=change, series=f"1.2.{seed}")
    harmonized(tmp_path / "H", tmp_path / "A")
    code, metrics, err = call(
        run, tmp_path / "E", "--harmonized", tmp_path / "H", "--target", tmp_path / "B"
    )
    assert code == 0, err
    assert metrics["spectral_distance_db"] is not None
    assert any("no larger ones fit" in note for note in metrics["notes"])


def test_exchanged_arguments_are_refused(run: Run, tree: Path, tmp_path: Path) -> None:
    for role, arguments in (
        ("source", ("--harmonized", tree / "A", "--target", tree / "B", "--source", tree / "H")),
        ("target", ("--harmonized", tree / "B", "--target", tree / "H")),
    ):
        code, _, err = call(run, tmp_path / "E", *arguments)
        assert code == 1
        assert f"did you exchange --harmonized and --{role}?" in err


def test_another_source_than_what_was_harmonized_is_refused(
    run: Run, tree: Path, tmp_path: Path
) -> None:
    """At the same place, of the same patient: a second reconstruction."""
    arguments = ("--harmonized", tree / "H", "--target", tree / "B", "--source")
    code, _, err = call(run, tmp_path / "E", *arguments, tree / "B")
    assert code == 1
    assert "series 1 was not derived from any of the 1 series given as source" in err


def test_images_of_other_programs_are_noted(run: Run, tree: Path, tmp_path: Path) -> None:
    code, metrics, err = call(
        run, tmp_path / "E", "--harmonized", tree / "A", "--target", tree / "B"
    )
    assert (code, metrics["paired"]) == (0, True)
    assert "1 of 1 series given as harmonized were not written by `cvsct harmonize`" in err


def test_the_other_direction_is_told(run: Run, tree: Path, tmp_path: Path) -> None:
    back = harmonized(tmp_path / "back", tree / "A", "Maker Scanner, kernel K1, 100 kVp")
    code, metrics, err = call(run, tmp_path / "E", "--harmonized", back, "--target", tree / "B")
    assert code == 0
    assert "harmonized in the other direction?" in err
    assert any("other direction" in note for note in metrics["notes"])
    _, _, err = call(run, tmp_path / "E2", "--harmonized", tree / "H", "--target", tree / "B")
    assert "direction" not in err


def test_roles_of_nifti(tree: Path, tmp_path: Path) -> None:
    """A NIfTI source is known again by its bytes."""
    own = write_converted(tree / "A", tmp_path / "a.nii.gz")
    other = write_converted(tree / "B", tmp_path / "b.nii.gz")
    stack = open_series(find_series(own)[0])
    writer = NiftiWriter(tmp_path / "h", DERIVATION, stack)
    volume = stack.read()
    writer.write(volume, volume.hu * np.float32(0.99))
    (path,) = writer.finish().files

    def origin(file: Path) -> Any:
        (series,) = find_series(file)
        return origin_of(series, read_series(series))

    roles = {"harmonized": [origin(path)], "target": [origin(other)]}
    assert check_roles(roles | {"source": [origin(own)]}) == []
    with pytest.raises(EvaluationError, match="not derived from any"):
        check_roles(roles | {"source": [origin(other)]})
    with pytest.raises(EvaluationError, match="did you exchange"):
        check_roles({"harmonized": [origin(own)], "target": [origin(path)]})


def test_a_retest_of_another_body_is_refused() -> None:
    volume, other = (make_volume(phantom_hu(seed, 0.6, 3)) for seed in (3, 8))
    retest = make_volume(
        phantom_hu(3, 0.6, 3) + np.random.default_rng(0).normal(0, 20, volume.shape)
    )
    assert evaluate([volume], [volume], None, FAST, retest=[retest]).paired
    with pytest.raises(EvaluationError, match="retest and target of compared series 1 show diff"):
        evaluate([volume], [volume], None, FAST, retest=[other])


def test_what_is_checked_is_the_source_where_there_is_one() -> None:
    """A model that has destroyed the body is compared all the same: its figures say so."""
    sharp, soft = (make_volume(phantom_hu(3, blur_px, 3)) for blur_px in (0.0, 0.8))
    ruined = sharp.with_hu(np.random.default_rng(0).normal(0, 300, sharp.shape).astype(np.float32))
    assert evaluate([ruined], [soft], [sharp], FAST).paired
    alone = evaluate([ruined], [soft], None, FAST)
    assert not alone.paired
    assert "harmonized series 1 and target series 1 show different bodies" in alone.unpaired_because


def test_of_several_series_only_those_that_show_the_same_are_compared() -> None:
    def at(seed: int, frame: str) -> CTVolume:
        volume = make_volume(phantom_hu(seed, 0.6, 3))
        return replace(volume, geometry=replace(volume.geometry, frame_of_reference=frame))

    remarks: list[str] = []
    evaluation = evaluate(
        [at(3, "1.1"), at(4, "1.2")], [at(3, "1.1"), at(8, "1.2")], None, FAST, note=remarks.append
    )
    assert (evaluation.paired, evaluation.n_slices) == (True, 3)
    assert any(
        note.startswith("left out: harmonized series 2 and target series 2") for note in remarks
    )
    assert set(remarks) <= set(evaluation.notes)


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        ("aa", "bb", True),
        ("aa", "aa", False),
        ("", "bb", False),
        (UNNAMED + "aa", UNNAMED + "bb", False),
        ("aa", UNNAMED + "bb", False),
    ],
)
def test_patients_differ_only_where_both_are_known(a: str, b: str, differ: bool) -> None:
    assert are_other_patients(a, b) is differ
    volume = make_volume(phantom_hu(3, 0.6, 2, size_px=48))
    assert bool(pair_volumes([volume], [volume], patients=([a], [b]))) is not differ


def test_two_studies_without_patient_id_may_show_one_patient(tmp_path: Path) -> None:
    a = only(scanned(tmp_path / "a", 3, 0.0, PatientID=None, StudyInstanceUID="1.2.31"))
    b = only(scanned(tmp_path / "b", 3, 0.8, PatientID="", StudyInstanceUID="1.2.32"))
    assert a.patient.startswith(UNNAMED)
    assert a.patient != b.patient
    assert not are_other_patients(a.patient, b.patient)


def test_among_several_patients_on_one_grid_each_pairs_with_its_own() -> None:
    """Without frames of reference their positions alone would leave two candidates."""
    volumes = [
        replace(volume, geometry=replace(volume.geometry, frame_of_reference=""))
        for volume in (make_volume(phantom_hu(seed, 0.6, 2, size_px=48)) for seed in (3, 8))
    ]
    pairs = pair_volumes(volumes, volumes[::-1], patients=(["p", "q"], ["q", "p"]))
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (1, 0)]


def sampler(folder: Path, change: Callable[[CTVolume], CTVolume]) -> PairSampler:
    """Pairs of a body and of what is made of it."""
    first = replace(make_volume(phantom_hu(3, 0.0, 4)), patient="p")
    stores = [
        open_store(folder / name, [volume], PatchRule(24))
        for name, volume in (("a", first), ("b", change(first)))
    ]
    return PairSampler.of(stores[0], stores[1], HUWindow())


def test_paired_training_refuses_other_patients_and_other_bodies(tmp_path: Path) -> None:
    assert sampler(tmp_path / "same", lambda v: v.with_hu(v.hu * np.float32(0.98))).n_pairs == 4
    with pytest.raises(TrainingError, match="source and target show different patients; give"):
        sampler(tmp_path / "who", lambda v: replace(v, patient="q"))
    other = make_volume(phantom_hu(8, 0.0, 4)).hu
    with pytest.raises(TrainingError, match="at one place but show different bodies"):
        sampler(tmp_path / "body", lambda v: v.with_hu(other))
    with pytest.raises(TrainingError, match="apart in plane"):
        sampler(tmp_path / "moved", lambda v: v.with_hu(np.roll(v.hu, 8, axis=1)))
