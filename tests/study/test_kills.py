"""Runs of a study that are killed, or shared out: the same bytes as of an undisturbed run."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import cvsct
from cvsct.study.jobs import Where, work_on_all
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


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
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
    items = [Deadly(key, tmp_path) for key in ("once", "a", "poison", "b")]
    told: list[tuple[int, int]] = []
    found = work_on_all(
        "deadly", items, die_once, Where(2), lambda _, done, total: told.append((done, total))
    )
    assert dict(found.results) == {key: key for key in ("once", "a", "b")}
    assert list(found.failed) == ["poison"]
    assert "its process ended with code 9" in found.failed["poison"]
    assert told[-1] == (4, 4)


def test_parts_of_a_study_and_then_the_whole_make_the_same_bytes(
    quick: Path, quick_done: Path, tmp_path: Path, run: Run
) -> None:
    """The first part waits for the second's scans before there can be models."""
    study = copy_study(quick, tmp_path / "study")
    words = ("study", "run", study, "--workers", 1)
    code, _, err = run(*words, "--shard", "1/2")
    assert code == 3
    assert "other parts are still preparing" in err
    for part in ("2/2", "1/2"):
        code, _, err = run(*words, "--shard", part)
        assert code == 0, err
        assert not (study / "features_wide.csv").exists()
    assert made(study) == made(quick_done)
    assert run(*words)[0] == 0
    assert finished(study) == finished(quick_done)


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
