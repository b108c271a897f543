"""Run of a study: what it leaves behind, and what a further run makes after an edit."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless

import cvsct
from cvsct.core.errors import CvsctError, StoppedError, TrainingError, UsageError
from cvsct.core.locks import file_lock
from cvsct.io.masks import read_label_masks
from cvsct.io.nifti.header import is_nifti
from cvsct.study.disk import needed_bytes
from cvsct.study.plan import read_plan
from cvsct.study.prepare import planned_series
from cvsct.study.run import LOCK
from tests.faults.validators import errors, missing
from tests.support.studies import (
    COUNT,
    GE,
    SIEMENS,
    TRAVELER,
    Done,
    Places,
    Planned,
    copy_study,
    edit_plan,
    lesion,
    made,
    mtimes,
    read_rows,
    set_option,
    volume_in,
    write_scan,
    write_seg,
)

REFERENCE = "siemens-somatom-force-br40-120kv-3mm"
THIN = "ge-revolution-ct-standard-120kv-1.5mm"
CONVERTED = "philips-ict-256-b-120kv-3mm"


@pytest.fixture
def mine(quick_done: Path, tmp_path: Path) -> Path:
    """A copy of the study that was run with models that take no time."""
    return copy_study(quick_done, tmp_path / "study")


def again(folder: Path) -> tuple[cvsct.StudyPlan, list[str]]:
    """Run again; the plan and what was said."""
    notes: list[str] = []
    result = cvsct.run_study(folder, workers=1, note=notes.append)
    assert not result.failed
    return read_plan(folder), notes


def model_times(folder: Path) -> dict[str, int]:
    return {
        path.name: (path / "SHA256SUMS").stat().st_mtime_ns
        for path in (folder / "models").iterdir()
        if path.is_dir()
    }


def wide(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "features_wide.csv", keep_default_na=False, dtype={"patient": str})


def test_every_series_has_a_status_and_a_place(done: Done) -> None:
    assert Counter(each.status for each in done.result.series) == {
        "reference": COUNT, "harmonized": 2 * COUNT,
    }  # fmt: skip
    rows = read_rows(done.folder / "series.csv")
    assert len(rows) == 3 * COUNT
    for row in rows:
        assert row["masks"] == "1"
        assert (done.folder / row["prepared"]).is_dir()
        assert bool(row["harmonized"]) == (row["group"] != REFERENCE)
        assert not row["harmonized"] or (done.folder / row["harmonized"]).is_dir()
    assert not done.result.failed_models and not done.result.failed_combat


def test_thin_slices_are_averaged_and_all_others_linked(done: Done, places: Places) -> None:
    for row in read_rows(done.folder / "series.csv"):
        volume = volume_in(done.folder / row["prepared"])
        assert volume.geometry.thickness_mm == 3.0 or row["group"] == CONVERTED
        assert len(volume) == 6
        source = volume_in(places.scans / row["path"])
        assert len(source) == (12 if row["group"] == THIN else 6)
        if row["group"] != THIN:
            np.testing.assert_array_equal(volume.hu, source.hu)


def test_harmonized_dicom_is_valid_and_names_its_source(done: Done) -> None:
    if missing():
        pytest.skip(missing())
    (row, *_) = (r for r in read_rows(done.folder / "series.csv") if r["group"] == THIN)
    for name in ("prepared", "harmonized"):
        files = sorted((done.folder / row[name]).glob("*.dcm"))
        assert len(files) == 6
        for file in files:
            assert errors("dciodvfy", "-new", file) == set()
    header = dcmread(files[0])
    assert header.SeriesInstanceUID == row["derived_uid"] != row["series_uid"]
    assert header.PatientID == row["patient"]


def test_masks_are_carried_to_the_harmonized_images(done: Done, places: Places) -> None:
    kinds: Counter[str] = Counter()
    for row in read_rows(done.folder / "series.csv"):
        if row["group"] == REFERENCE:
            continue
        folder = done.folder / "masks" / "harmonized" / row["group"] / Path(row["prepared"]).name
        (file,) = (path for path in folder.iterdir() if not path.name.startswith("."))
        assert file.stat().st_mode & 0o077 == 0
        volume = volume_in(done.folder / row["harmonized"])
        (mask,) = read_label_masks(file, volume).masks.values()
        kinds[row["group"]] += 1
        truth = lesion(3.0)
        overlap = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        if row["group"] == THIN:  # averaged in pairs: what is in one slice alone is half in
            assert overlap > 0.8
            scan = places.scans / row["path"]
            drawn = read_label_masks(scan.parent / "rt" / "mask.dcm", volume_in(scan)).masks
            assert 3.0 * mask.sum() == pytest.approx(1.5 * sum(drawn.values()).sum(), rel=0.02)
        else:
            assert overlap > 0.9999
    assert kinds == {THIN: COUNT, CONVERTED: COUNT}


def test_every_stage_of_features_has_every_patient(done: Done) -> None:
    table = wide(done.folder)
    assert not table["error"].any()
    assert set(table["region"]) == {"lesion"}
    stages = {"source", "resampled", "harmonized", "combat", "resampled+combat",
              "harmonized+combat"}  # fmt: skip
    assert set(table["stage"]) == stages
    series = {(row["series_uid"], row["group"]) for row in read_rows(done.folder / "series.csv")}
    for stage in stages:
        own = table[table["stage"] == stage]
        assert set(zip(own["series_uid"], own["batch"], strict=True)) == series
        assert len(own) == len(series)
    values = table[[name for name in table if name.startswith("original_")]].astype(float)
    assert np.isfinite(values.to_numpy()).all()
    long = pd.read_csv(done.folder / "features_long.csv")
    assert {"source", "resampled", "harmonized"} <= set(long["stage"])


def test_features_of_the_source_are_those_of_extract_features(done: Done, places: Places) -> None:
    """An independent door to the same numbers."""
    scan = places.scans / SIEMENS.site / "SUED-002" / "ct"
    table = cvsct.extract_features(
        scan, masks=scan.parent / "seg", settings=places.settings, workers=1
    ).to_pandas()
    ours = wide(done.folder)
    ours = ours[(ours["patient"] == "SUED-002") & (ours["stage"] == "source")]
    names = [name for name in table if name.startswith("original_")]
    np.testing.assert_allclose(
        ours[names].astype(float).to_numpy(), table[names].to_numpy(), rtol=1e-12
    )


def test_a_patient_in_two_groups_is_held_out_of_the_models(done: Done) -> None:
    uids = {row["patient"]: row["series_uid"] for row in read_rows(done.folder / "series.csv")}
    for name in (THIN, CONVERTED):
        text = (done.folder / "models" / name / "manifest.json").read_text(encoding="utf-8")
        learned = json.loads(text)["inputs"]
        assert len(learned["target"]) == COUNT - 1
        assert uids[TRAVELER] not in learned["source"] + learned["target"]


def test_what_names_patients_is_for_the_owner_alone(done: Done, places: Places) -> None:
    """All files but images, which are as their makers have them."""
    open_files, named = [], []
    for path in done.folder.rglob("*"):
        if path.is_symlink() or not path.is_file() or path.suffix == ".dcm":
            continue
        content = path.read_bytes()
        holds = any(word.encode() in content or word in path.name for word in places.ids)
        if holds and path.stat().st_mode & 0o077 and not path.name.endswith((".nii", ".nii.gz")):
            open_files.append(str(path.relative_to(done.folder)))
        if holds and path.name in ("manifest.json", "combat.json", "plan.html", "settings.yaml"):
            named.append(str(path.relative_to(done.folder)))
    assert not open_files
    assert not named


def test_a_second_run_makes_nothing(mine: Path) -> None:
    before, tables = mtimes(mine), model_times(mine)
    again(mine)
    assert mtimes(mine) == before
    assert model_times(mine) == tables


def test_a_patient_who_came_later_is_harmonized_by_the_models_that_are_there(
    quick_done: Path, places: Places, tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(places.scans, scans, copy_function=shutil.copy2)
    rules = {**places.plan_words["rules"], "method": "histogram"}
    words = {
        **places.plan_words,
        "rules": rules,
        "masks": [scans / SIEMENS.site, scans / GE.site, places.masks],
    }
    study = copy_study(quick_done, tmp_path / "study")
    set_option(study, json.dumps(str(places.scans)), json.dumps(str(scans)))
    for site in (SIEMENS.site, GE.site):
        set_option(study, json.dumps(str(places.scans / site)), json.dumps(str(scans / site)))
    again(study)  # the scans have moved
    before, models = mtimes(study), model_times(study)
    assert models == model_times(quick_done)
    assert made(study, "harmonized") == made(quick_done, "harmonized")
    new = write_scan(scans / SIEMENS.site / "LATE" / "ct", SIEMENS, "LATE-1", 9)
    write_seg(scans / SIEMENS.site / "LATE" / "seg" / "m.dcm", new)
    thin = write_scan(scans / GE.site / "LATE" / "ct", GE, "LATE-2", 19)
    write_seg(scans / GE.site / "LATE" / "seg" / "m.dcm", thin, GE.thickness_mm)
    cvsct.plan_study(scans, study, **words)
    plan, notes = again(study)
    assert len(plan.used) == 3 * COUNT + 2
    assert model_times(study) == models
    assert any(f"{THIN}: 1 series came later than its model" in note for note in notes)
    after = mtimes(study)
    assert {path: after[path] for path in before} == before
    assert {path.parts[0] for path in after.keys() - before.keys()} == {
        "prepared", "harmonized", "masks",
    }  # fmt: skip
    assert {"LATE-1", "LATE-2"} <= set(wide(study)["patient"])


def test_a_series_that_is_left_out_is_gone_and_its_model_learns_anew(mine: Path) -> None:
    models, before = model_times(mine), mtimes(mine)
    edit_plan(mine, lambda row: row.update(use="no") if row["patient"] == "NORD-013" else None)
    plan, notes = again(mine)
    assert any(f"{THIN}: its model is trained again" in note for note in notes)
    after = model_times(mine)
    assert after[CONVERTED] == models[CONVERTED]
    assert after[THIN] > models[THIN]
    times = mtimes(mine)
    kept = {path for path in before if path.parts[0] == "prepared" or CONVERTED in path.parts}
    gone = kept - times.keys()
    assert len({path.parent for path in gone}) == 1
    assert {path: times[path] for path in kept - gone} == {
        path: before[path] for path in kept - gone
    }
    assert "NORD-013" not in set(wide(mine)["patient"])
    check_no_leftovers(mine, plan)


def check_no_leftovers(folder: Path, plan: cvsct.StudyPlan) -> None:
    """Nothing lies in the study's folders but what its plan has."""
    groups = {group.name: group.n_series for group in plan.groups}
    others = {name: count for name, count in groups.items() if name != plan.reference}

    def count(top: str) -> dict[str, int]:
        return {
            group.name: sum(path.is_dir() for path in group.iterdir())
            for group in (folder / top).iterdir()
            if group.is_dir()
        }

    assert count("prepared") == groups
    assert count("harmonized") == others
    assert count("masks/harmonized") == others
    assert set(model_times(folder)) == set(others)


def test_a_series_that_is_moved_to_another_group_is_made_there(mine: Path) -> None:
    """One that its model has not learned from: the traveler's."""
    models = model_times(mine)

    def move(row: dict[str, str]) -> None:
        if row["patient"] == TRAVELER and row["group"] == THIN:
            row["group"], row["manufacturer"] = REFERENCE, SIEMENS.manufacturer

    edit_plan(mine, move)
    plan, _ = again(mine)
    assert model_times(mine) == models
    check_no_leftovers(mine, plan)
    table = wide(mine)
    assert set(table[table["patient"] == TRAVELER]["batch"]) == {REFERENCE}


@pytest.mark.slow
def test_another_reference_makes_all_anew_and_leaves_nothing_of_the_old(mine: Path) -> None:
    set_option(mine, f'reference = "{REFERENCE}"', f'reference = "{CONVERTED}"')
    plan, _ = again(mine)
    assert plan.reference == CONVERTED
    check_no_leftovers(mine, plan)
    table = wide(mine)
    assert set(table[table["harmonized_to"] != ""]["harmonized_to"]) == {CONVERTED}


def test_files_that_were_replaced_are_harmonized_again(
    quick_done: Path, places: Places, tmp_path: Path
) -> None:
    """The same UIDs, other pixels: as a series that was sent again after a correction."""
    scans = tmp_path / "scans"
    shutil.copytree(places.scans, scans, copy_function=shutil.copy2)
    study = copy_study(quick_done, tmp_path / "study")
    set_option(study, json.dumps(str(places.scans)), json.dumps(str(scans)))
    folders = {row["patient"]: row["path"] for row in read_rows(study / "series.csv")}
    one, other = (scans / folders[f"NORD-{number:03d}"] for number in (12, 13))
    for file in one.iterdir():
        header, pixels = dcmread(file), dcmread(other / file.name).PixelData
        header.PixelData = pixels
        header.save_as(file)
    again(study)
    rows = {row["patient"]: row for row in read_rows(study / "series.csv")}
    for top in ("prepared", "harmonized"):
        volumes = [volume_in(study / rows[f"NORD-{number:03d}"][top]) for number in (12, 13)]
        np.testing.assert_array_equal(volumes[0].hu, volumes[1].hu)


def test_a_series_whose_files_are_lost_is_named_and_nothing_of_it_thrown_away(
    quick_done: Path, places: Places, tmp_path: Path
) -> None:
    """As when the disk of one hospital is not mounted."""
    scans = tmp_path / "scans"
    shutil.copytree(places.scans, scans, copy_function=shutil.copy2)
    study = copy_study(quick_done, tmp_path / "study")
    set_option(study, json.dumps(str(places.scans)), json.dumps(str(scans)))
    models = model_times(study)
    hidden = (scans / GE.site / "NORD-013").rename(tmp_path / "NORD-013")
    result = cvsct.run_study(study, workers=1)
    (failed,) = result.failed
    assert failed.row.patient == "NORD-013"
    assert "not there (plan.csv, line " in failed.reason
    assert model_times(study) == models
    hidden.rename(scans / GE.site / "NORD-013")
    again(study)
    assert model_times(study) == models
    assert made(study, "harmonized") == made(quick_done, "harmonized")


def test_a_model_stays_until_the_next_one_is_whole(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model_times(mine)
    set_option(mine, "seed = 0", "seed = 1")  # what models are trained with

    def fail(*_: object, **__: object) -> None:
        raise TrainingError("nothing to learn")

    monkeypatch.setattr("cvsct.study.models.train", fail)
    result = cvsct.run_study(mine, workers=1)
    assert set(result.failed_models.values()) == {"nothing to learn"}
    assert model_times(mine) == before
    monkeypatch.undo()
    assert not cvsct.run_study(mine, workers=1).failed_models
    after = model_times(mine)
    assert all(after[name] != before[name] for name in before)
    assert not list((mine / "models").glob(".*.new*"))


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_kill_leaves_of_a_training_is_no_hindrance(mine: Path, whole: bool) -> None:
    """Killed while the files of a model were written, or before it was moved to its place."""
    model = mine / "models" / THIN
    left = model.with_name(f".{THIN}.new")
    shutil.move(model, left)
    shutil.move(model.with_name(f"{THIN}.json"), left.with_name(f"{left.name}.json"))
    if not whole:
        (left / "SHA256SUMS").unlink()
    shutil.copytree(left, left.with_name(".gone.new"))
    before = made(mine, "harmonized")
    again(mine)
    assert made(mine, "harmonized") == before
    assert not list(model.parent.glob(".*.new*"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('method = "histogram"', 'method = "histogran"', "did you mean 'histogram'"),
        ('method = "histogram"', 'method = "pix2pix"', "no method|learns from pairs"),
        ('method = "histogram"', 'method = "choe-cnn"', "learns from pairs"),
        ("settings = {  }", "settings = { sead = 1 }", "sead"),
    ],
)
def test_a_method_that_is_none_is_refused_before_anything_is_removed(
    mine: Path, old: str, new: str, message: str
) -> None:
    before = mtimes(mine)
    set_option(mine, old, new)
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=message):
            cvsct.run_study(mine, dry_run=dry_run)
    toml = mine / "plan.toml"
    assert {path: t for path, t in mtimes(mine).items() if path != toml} == {
        path: t for path, t in before.items() if path != toml
    }


def test_a_group_of_two_manufacturers_is_refused_with_its_line(mine: Path) -> None:
    def change(row: dict[str, str]) -> None:
        if row["group"] == REFERENCE:
            row["group"] = THIN

    edit_plan(mine, change)
    set_option(mine, f'reference = "{REFERENCE}"', f'reference = "{CONVERTED}"')
    with pytest.raises(UsageError, match=r"plan\.csv, line \d+: group .* has scans of .* and of"):
        cvsct.run_study(mine)


def test_a_dry_run_tells_what_would_be_done(planned: Planned, tmp_path: Path) -> None:
    study = copy_study(planned.folder, tmp_path / "study")
    result = cvsct.run_study(study, dry_run=True)
    assert result.wanted() == (
        f"{2 * COUNT} series would be harmonized or kept as they are, {COUNT} of the reference; "
        f"2 models would be trained: {', '.join(result.new_models)}"
    )
    assert set(result.new_models) == {THIN, CONVERTED}


def test_thickness_of_nifti_is_in_the_tables_of_features(done: Done) -> None:
    table = wide(done.folder)
    assert set(table[table["batch"] == CONVERTED]["thickness_mm"]) == {3.0}
    assert set(table[(table["batch"] == THIN) & (table["stage"] == "source")]["thickness_mm"]) == {
        1.5
    }


def test_a_study_none_of_whose_scans_is_there_is_an_error(mine: Path, places: Places) -> None:
    before = mtimes(mine)
    set_option(mine, json.dumps(str(places.scans)), '"/nowhere at all"')
    with pytest.raises(CvsctError, match="none of the plan's series is there any more"):
        cvsct.run_study(mine)
    assert mtimes(mine) == before


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copy_study(planned.folder, tmp_path / "study")
    before = sorted(study.rglob("*"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CvsctError, match=r"the disk is too small: 0\.0 GB needed, 0\.0 GB free"):
        cvsct.run_study(study)
    assert sorted(study.rglob("*")) == before


def test_the_disk_need_of_compressed_scans_is_that_of_plain_ones(
    planned: Planned, places: Places, tmp_path: Path
) -> None:
    plan = read_plan(copy_study(planned.folder, tmp_path / "study"))
    series, _ = planned_series(plan)
    needed = needed_bytes(plan, series)
    packed = []
    for each in series:
        files = []
        for number, file in enumerate(each.source.files):
            copy = tmp_path / "packed" / each.key / f"{number}{''.join(file.suffixes)}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            if is_nifti(file):
                shutil.copy(file, copy)
            else:
                header = dcmread(file)
                header.compress(JPEGLSLossless, generate_instance_uid=False)
                header.save_as(copy)
            files.append(copy)
        packed.append(replace(each, source=replace(each.source, files=tuple(files))))
    stored = [
        sum(f.stat().st_size for each in s for f in each.source.files) for s in (packed, series)
    ]
    assert stored[0] < 0.8 * stored[1]
    assert needed_bytes(plan, packed) == pytest.approx(needed, rel=0.05)


def test_two_runs_at_once_are_refused(mine: Path) -> None:
    for held, shard in (("", ""), ("", "1/2"), ("-1of2", ""), ("-1of2", "1/2")):
        with (
            file_lock(mine / f"{LOCK}{held}"),
            pytest.raises(UsageError, match="another run of this study is at work"),
        ):
            cvsct.run_study(mine, workers=1, shard=shard)


def test_ctrl_c_keeps_what_is_done(planned: Planned, tmp_path: Path) -> None:
    study = copy_study(planned.folder, tmp_path / "study")

    def stop(task: str, done: int, total: int) -> None:
        if task == "preparing" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError, match=r"4 of 15 series are done \(preparing\)"):
        cvsct.run_study(study, workers=1, progress=stop)
    assert len(list((study / "prepared").glob("*/*"))) >= 3


def test_a_dry_run_writes_nothing(planned: Planned, tmp_path: Path) -> None:
    study = copy_study(planned.folder, tmp_path / "study")
    before = sorted(study.rglob("*"))
    result = cvsct.run_study(study, dry_run=True)
    assert sorted(study.rglob("*")) == before
    assert not result.complete
    assert len(result.series) == 3 * COUNT
