"""Runs of a study that are killed, or shared out: the same bytes as of an undisturbed run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import cvsct
from cvsct.core.errors import SeriesError
from cvsct.core.progress import no_note, silent
from cvsct.inference.cohort.shards import Shard
from cvsct.study import parts
from cvsct.study.jobs import Where, work_on_all
from cvsct.study.plan import read_plan
from cvsct.study.prepare import PreparedSeries, planned_series, prepare_series
from cvsct.study.run import LOCK
from tests.faults.kills import Killing
from tests.support.commands import Run
from tests.support.studies import copy_study, made

WITHIN_S = 4.0
"""A kill comes at most so long after a run has begun to work."""


def finished(folder: Path) -> dict[str, bytes]:
    """Images, masks and features of a study that has come to its end."""
    left = [path.name for path in folder.rglob(".*partial*")]
    assert not left
    names = ("features_wide.csv", "features_long.csv", "series.csv")
    return made(folder) | {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_bytes(
    quick: Path, quick_done: Path, tmp_path: Path, kills: int
) -> None:
    study = copy_study(quick, tmp_path / "study")
    killing = Killing(
        ["study", "run", str(study), "--workers", "2"], tmp_path / "log",
        np.random.default_rng(kills), lambda: any(study.glob(LOCK)), WITHIN_S,
    )  # fmt: skip
    for _ in range(kills):
        if killing.once():
            assert finished(study) == finished(quick_done)
            study = copy_study(quick, tmp_path / f"study {_}")
            killing.words[2] = str(study)
    assert not killing.failures
    result = cvsct.run_study(study, workers=1)
    assert not result.failed
    assert finished(study) == finished(quick_done)


@dataclass(frozen=True)
class Deadly:
    """An item whose first process dies."""

    key: str
    folder: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """What a worker must see."""
        return (self.folder,)


def die_once(item: Deadly) -> Generator[int, None, str]:
    """Die at the first try of an item, and of one named poison at every one."""
    mark = item.folder / item.key
    if item.key == "poison" or (item.key == "once" and not mark.exists()):
        mark.touch()
        os._exit(9)
    yield 1
    return item.key


def test_a_series_whose_process_was_killed_is_tried_again(tmp_path: Path) -> None:
    """Else a model would be trained without it, and would stay so."""
    items = [Deadly(key, tmp_path) for key in ("once", "a", "b", "poison")]
    told: list[tuple[int, int]] = []
    found = work_on_all(
        "deadly", items, die_once, Where(2), lambda _, done, total: told.append((done, total))
    )
    assert dict(found.results) == {key: key for key in ("once", "a", "b")}
    assert list(found.failed) == ["poison"]
    assert "its process ended with code 9" in found.failed["poison"]
    assert told[-1] == (4, 4)


@pytest.mark.slow
def test_parts_of_a_study_and_then_the_whole_make_the_same_bytes(
    quick: Path, quick_done: Path, tmp_path: Path, run: Run
) -> None:
    """The first part prepares the second's scans too, which is not at work."""
    study = copy_study(quick, tmp_path / "study")
    words = ("study", "run", study, "--workers", 1)
    for part in ("1/2", "2/2"):
        code, _, err = run(*words, "--shard", part)
        assert code == 0, err
        assert not (study / "features_wide.csv").exists()
    assert made(study) == made(quick_done)
    assert run(*words)[0] == 0
    assert finished(study) == finished(quick_done)


def test_parts_at_once_wait_for_each_other(quick: Path, quick_done: Path, tmp_path: Path) -> None:
    study = copy_study(quick, tmp_path / "study")
    words = [sys.executable, "-m", "cvsct.cli", "study", "run", study, "--workers", "1", "--shard"]
    parts = [
        subprocess.Popen([*words, part], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for part in ("1/3", "2/3", "3/3")
    ]
    for part in parts:
        _, err = part.communicate(timeout=300)
        assert part.returncode == 0, err.decode()
    assert made(study) == made(quick_done)


def test_a_series_that_one_part_cannot_prepare_holds_up_no_other(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copy_study(quick, tmp_path / "study")
    plan = read_plan(study)
    series, _ = planned_series(plan)
    bad = next(each for each in series if Shard(2, 2).holds(each.key)).key

    def prepare(item: PreparedSeries) -> Generator[int, None, tuple[str, ...]]:
        if item.key == bad:
            raise SeriesError("damaged")
        return (yield from prepare_series(item))

    monkeypatch.setattr(parts, "prepare_series", prepare)
    uid = next(each.row.series_uid for each in series if each.key == bad)
    work = Where(1), silent, no_note
    for _ in range(2):  # a further run tries it again, and is not held up either
        here, elsewhere = parts.prepare_part(study, series, Shard(1, 2), *work)
        assert (here, elsewhere) == ({}, {uid: "damaged"})
        here, elsewhere = parts.prepare_part(study, series, Shard(2, 2), *work)
        assert (here, elsewhere) == ({uid: "damaged"}, {})
    monkeypatch.setattr(parts, "prepare_series", prepare_series)
    assert parts.prepare_part(study, series, Shard(2, 2), *work) == ({}, {})
    assert not list((study / "prepared" / parts.FAILURES).iterdir())


@pytest.mark.slow
def test_a_dask_cluster_makes_the_same_bytes(quick: Path, quick_done: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    study = copy_study(quick, tmp_path / "study")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        result = cvsct.run_study(study, scheduler=cluster.scheduler_address)
    assert not result.failed
    assert finished(study) == finished(quick_done)
