"""Cohorts: every series once and with the same bytes, whatever dies on the way."""

from __future__ import annotations

import csv
import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

import cvsct
from cvsct.core.dask_workers import DaskWorkers
from cvsct.core.errors import CvsctError, StoppedError, UsageError
from cvsct.core.locks import file_lock
from cvsct.core.resumable import LOCK
from cvsct.core.workers import Processes
from cvsct.inference.cohort import run as cohort
from cvsct.inference.cohort.job import SeriesHarmonizer
from cvsct.inference.cohort.journal import Journal
from cvsct.inference.cohort.shards import Shard, by_key
from cvsct.io.read import find_series
from cvsct.model.bundle import Bundle, Domain
from tests.conftest import make_volume
from tests.faults.workers import faults_seen, go, tasks_of, undisturbed
from tests.support.commands import Run
from tests.support.dicom_files import write_series
from tests.support.faulty_cohort import content, work, write_tree

COUNT = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "input"
    domain = Domain.of([make_volume(np.zeros((1, 4, 4)))])
    Bundle("input", {}, {}, domain, domain).write(folder)
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"), COUNT)


@pytest.fixture(scope="module")
def whole(model: Path, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of an undisturbed run without any cohort: series after series in this process."""
    return undisturbed(model, tree, tmp_path_factory.mktemp("whole"))


def test_dead_workers_and_a_poison_cost_nothing_but_the_poison(
    model: Path, tree: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    poison, once, *_ = tasks_of(tree)
    seen, out = tmp_path / "seen", tmp_path / "out"
    seen.mkdir()
    faulty = work(model, deaths=((once, 2),), poison=(poison,), seen=seen)
    found = go(tree, out, Processes(faulty, 2))
    assert not faults_seen(found, out, seen, whole, poison, [once])
    again = go(tree, out, Processes(faulty, 2))
    assert again.quarantined == {poison}
    assert len(list(seen.glob(f"{poison}-*"))) == 3, "it is not tried again by itself"
    good = go(tree, out, Processes(work(model, seen=seen), 1), again=True)
    assert not good.failed
    assert content(out) == whole


@pytest.mark.parametrize(
    "poisoned", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["death", "poison"]
)
def test_dask_makes_the_same_bytes_and_survives_the_same(
    model: Path, tree: Path, whole: dict[str, bytes], tmp_path: Path, poisoned: bool
) -> None:
    distributed = pytest.importorskip("distributed")
    poison, once, *_ = tasks_of(tree)
    seen, out = tmp_path / "seen", tmp_path / "out"
    seen.mkdir()
    faults = {"deaths": ((once, 2),), "poison": (poison,) if poisoned else ()}
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        crew = DaskWorkers(cluster.scheduler_address, work(model, seen=seen, **faults))
        found = go(tree, out, crew)
    if poisoned:
        assert not faults_seen(found, out, seen, whole, poison, [once])
    else:
        assert not found.failed
        assert content(out) == whole
        assert len(list(seen.glob(f"{once}-*"))) == 2
        assert crew.most == 2


def test_a_killed_run_goes_on_with_the_same_bytes(
    model: Path, tree: Path, whole: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out"
    words = ["harmonize", tree, "--model", model, "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "cvsct.cli", *map(str, words)], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(list(out.glob("????????????????"))) < 2:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    for folder in out.glob("????????????????"):
        assert len(list(folder.iterdir())) == 4, "a folder is whole or not there"
    with closing(sqlite3.connect(out / "journal.sqlite")) as journal:
        (key,) = journal.execute("SELECT key FROM series WHERE status='done' LIMIT 1").fetchone()
    changed = next((out / key).glob("*.dcm"))
    changed.write_bytes(changed.read_bytes()[:-2] + b"xx")
    code, printed, err = run(*words)
    assert (code, printed) == (0, f"{out}: 8 series, 24 slices, by input\n")
    assert "1 series is not as written, and made again" in err
    assert content(out) == whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")}
    assert run(*words, "--resume")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")} == before


def test_a_run_stopped_before_its_first_series_is_recorded_goes_on(
    model: Path,
    tree: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(StoppedError, match="0 of 8 series"):
        patch.setattr(Journal, "done", stop)
        cvsct.harmonize(tree, model=model, out=out)
    assert list(out.glob("????????????????")), "the series is whole, but not recorded"
    assert run("harmonize", tree, "--model", model, "--out", out)[0] == 0
    assert content(out) == whole


def gap(ds: Dataset, i: int) -> None:
    if i == 2:
        ds.ImagePositionPatient = [-100, -120, 500]


def test_a_refused_series_is_final_until_asked_for_again(
    model: Path, tmp_path: Path, run: Run
) -> None:
    tree = write_tree(tmp_path / "tree", 2)
    write_series(tree / "bad", 3, change=gap, series="1.9.1")
    (tree / "broken.dcm").write_bytes(b"cut off")
    words = ["harmonize", tree, "--model", model, "--out", tmp_path / "out", "--workers", 2]
    code, printed, err = run(*words)
    assert code == 3
    assert "out: 2 series, 6 slices" in printed
    assert "gap of 495.0 mm" in err and "broken.dcm" in err
    assert "--resume tries again" in err
    figures = json.loads((tmp_path / "out" / "manifest.json").read_text())["figures"]
    assert [row["source_series_uid"] for row in figures["series"] if "error" in row] == [
        "1.9.1",
        "",
    ]
    assert (figures["n_done"], figures["n_failed"], figures["workers"]) == (2, 2, 2)
    write_series(tree / "bad", 3, series="1.9.1")
    (tree / "broken.dcm").unlink()
    assert run(*words)[0] == 3
    assert run(*words, "--resume")[0] == 0
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 9


def test_shards_part_the_series_and_share_the_folder(
    model: Path, tree: Path, whole: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out"
    words = ["harmonize", tree, "--model", model, "--out", out]
    assert run(*words, "--shard", "2/3")[0] == 0
    some = content(out)
    assert 0 < len(some) < len(whole)
    assert not (out / "manifest.json").exists()
    code, _, err = run(*words, "--shard", "1/2")
    assert code == 2
    assert "another part of it is of another cohort (shards 3 there, 2 now)" in err
    code, _, err = run(*words, "--shard", "1/3", "--keep-equipment")
    assert code == 2
    assert "keep_equipment False there, True now" in err
    for index in (1, 3):
        assert run(*words, "--shard", f"{index}/3")[0] == 0
    assert content(out) == whole
    manifest = json.loads((out / "manifest.json").read_text())
    uids = [row["source_series_uid"] for row in manifest["figures"]["series"]]
    assert uids == sorted(f"1.2.77.{i}" for i in range(COUNT))
    assert manifest["figures"]["n_slices"] == 3 * COUNT
    assert manifest["figures"]["model"]["name"] == model.name
    assert manifest["figures"]["model"]["source"]["n_series"] > 0
    assert {path.name for path in out.glob("*.sqlite")} == {
        f"journal-{i}of3.sqlite" for i in (1, 2, 3)
    }
    with (out / "series.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["series_uid"] for row in rows] == uids
    assert {row["status"] for row in rows} == {"done"}
    assert sum(len(path.read_text().splitlines()) - 1 for path in out.glob("series-*.csv")) == COUNT


def test_a_series_table_cut_short_by_a_kill_is_made_again(
    model: Path, tree: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out"
    words = ["harmonize", tree, "--model", model, "--out", out]
    assert run(*words)[0] == 0
    whole = (out / "series.csv").read_bytes()
    (out / "series.csv").write_bytes(whole[: len(whole) // 2])
    assert run(*words)[0] == 0
    assert (out / "series.csv").read_bytes() == whole


def test_a_series_belongs_to_one_shard_whatever_else_is_there(tree: Path) -> None:
    series = find_series(tree)
    parts = [set(by_key(series, tree, Shard(i, 3))) for i in (1, 2, 3)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == COUNT
    fewer = [set(by_key(series[:4], tree, Shard(i, 3))) for i in (1, 2, 3)]
    assert all(few <= part for few, part in zip(fewer, parts, strict=True))
    for wrong in ("0/3", "4/3", "1", "1/0", "a/b", "1/2/3", "-1/2"):
        with pytest.raises(UsageError, match="expected I/N"):
            Shard.parse(wrong)
    assert Shard.parse("3/4").name == "3of4"


def test_another_plan_or_folder_and_a_second_run_at_once_are_refused(
    model: Path, tree: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out"
    words = ["harmonize", tree, "--model", model, "--out", out]
    assert run(*words)[0] == 0
    code, _, err = run(*words, "--keep-equipment")
    assert code == 2
    assert "holds another cohort (keep_equipment False there, True now)" in err
    with file_lock(out / LOCK):
        code, _, err = run(*words)
        assert code == 2
        assert "another cohort is at work in this folder" in err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file.txt").write_text("keep")
    for more in (["--shard", "1/2"], ["--resume"], []):
        assert run(*words[:-1], tmp_path / "mine", *more)[0] == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file.txt"]


def test_the_journal_tells_no_patient_and_no_path(model: Path, tmp_path: Path, run: Run) -> None:
    tree = write_tree(tmp_path / "Mueller-Anna", 2)
    write_series(tree / "P1", 3, change=gap, series="1.9.1")
    (tree / "broken.dcm").write_bytes(b"cut off")
    assert run("harmonize", tree, "--model", model, "--out", tmp_path / "out")[0] == 3
    for name in ("journal.sqlite", "plan.json", "manifest.json"):
        data = (tmp_path / "out" / name).read_bytes()
        for planted in (b"Mueller", b"M\xfcller", b"Anna", b"P1", b"19600101", b"Hospital", b"A1"):
            assert planted not in data, (name, planted)
    data = (tmp_path / "out" / "journal.sqlite").read_bytes()
    assert b"1.2.77" not in data and b"1.9.1" not in data


def test_leases_are_lost_at_once_here_and_by_time_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("cvsct.inference.cohort.journal.time.time", lambda: now[0])
    path = tmp_path / "journal.sqlite"
    keys = ["a", "b", "c"]
    entry = cohort.Entry("ab", "2.25.1", 3, 1.5, 0.1)
    gone = cohort.Journal(path, "there")
    gone.begin(keys)
    assert gone.lease() == ("a", 1)
    here = cohort.Journal(path, "here")
    here.begin(keys)
    assert [here.lease(), here.lease(), here.lease()] == [("b", 1), ("c", 1), None]
    now[0] += 100
    gone.renew()
    now[0] += 100
    assert here.lease() is None, "it lives"
    now[0] += 100
    assert here.lease() == ("a", 2)
    assert here.holds("a") and not gone.holds("a")
    gone.done("a", entry)
    gone.failed("a", "too late")
    assert {row.key: row.status for row in here.rows()} == dict.fromkeys(keys, "leased")
    here.done("a", entry)
    gone.close()
    killed = cohort.Journal(path, "here")  # the next run here, by its lock the only one
    killed.begin(keys)
    assert killed.counts() == {"done": 1, "waiting": 2}
    (row,) = (row for row in killed.rows() if row.status == "done")
    assert row.entry == entry
    for journal in (here, killed):
        journal.close()


def test_three_deaths_are_too_many_and_those_while_loading_none(tmp_path: Path) -> None:
    with closing(cohort.Journal(tmp_path / "journal.sqlite")) as journal:
        journal.begin(["poison", "good"])
        for guilty, status in ((False, 0), (True, 0), (True, 0), (True, 1)):
            lease = journal.lease()
            if lease and lease[0] == "good":  # those that have cost nothing come first
                journal.failed("good", "refused")
                lease = journal.lease()
            assert lease is not None and lease[0] == "poison"
            journal.died("poison", "killed", guilty)
            assert journal.counts().get("quarantined", 0) == status


def test_what_every_series_would_meet_ends_the_run_and_keeps_what_is_there(
    model: Path, tree: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out, seen = tmp_path / "out", tmp_path / "seen"
    seen.mkdir()
    full = list(tasks_of(tree))[3]
    with pytest.raises(CvsctError, match=r"No space left.*; 3 of 8 series are kept, the same"):
        go(tree, out, Processes(work(model, full=(full,), seen=seen), 1))
    assert len(content(out)) == 12
    with pytest.raises(CvsctError, match=r"another model than when the run began.*3 of 8 series"):
        go(tree, out, Processes(SeriesHarmonizer(model, "cd" * 32), 1))
    assert len([path for path in out.iterdir() if not path.is_file()]) == 3
    assert not go(tree, out, Processes(work(model, seen=seen), 1)).failed
    assert content(out) == whole


def test_a_scheduler_that_is_not_there_and_a_missing_extra_are_told(
    model: Path, tree: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["harmonize", tree, "--model", model, "--out", tmp_path / "out", "--scheduler"]
    code, _, err = run(*words, "nonsense://here")
    assert code == 1
    assert "--scheduler nonsense://here: no Dask scheduler answers" in err
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = run(*words, "tcp://127.0.0.1:9")
    assert code == 1
    assert "--scheduler needs distributed" in err and "pip install 'cvsct[cohort]'" in err
    assert not (tmp_path / "out").exists()
