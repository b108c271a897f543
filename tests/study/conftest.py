"""A study that is planned, run and reported once for all tests; a test that changes it copies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import cvsct
from cvsct.study.report import StudyReport
from cvsct.study.run import StudyResult
from tests.support.studies import Places, write_study


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Scans, masks and tables of three scanners, under a path with a space and an umlaut."""
    return write_study(tmp_path_factory.mktemp("study") / "Daten für alle")


@dataclass(frozen=True)
class Planned:
    """A plan and what was said while it was made.

    Args:
        plan: the plan.
        notes: remarks.
    """

    plan: cvsct.StudyPlan
    notes: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.plan.folder


@pytest.fixture(scope="session")
def planned(places: Places) -> Planned:
    """The study, planned."""
    notes: list[str] = []
    out = places.root / "study planned"
    plan = cvsct.plan_study(places.scans, out, note=notes.append, **places.plan_words)
    return Planned(plan, tuple(notes))


Copied = Callable[[Path], Path]


def copy_study(folder: Path, to: Path) -> Path:
    """A copy of a study's folder; links stay links."""
    shutil.copytree(folder, to, symlinks=True)
    return to


@dataclass(frozen=True)
class Done:
    """A study that was run without a disturbance.

    Args:
        folder: the study's folder.
        result: result of the run.
        notes: remarks.
    """

    folder: Path
    result: StudyResult
    notes: tuple[str, ...]


@pytest.fixture(scope="session")
def done(planned: Planned, places: Places) -> Done:
    """The study, run; reported by `reported`."""
    folder = copy_study(planned.folder, places.root / "study done")
    notes: list[str] = []
    result = cvsct.run_study(folder, workers=1, note=notes.append)
    return Done(folder, result, tuple(notes))


@pytest.fixture(scope="session")
def reported(done: Done) -> StudyReport:
    """The report of the study that was run, with an outcome."""
    return cvsct.report_study(done.folder, outcome="relapse", permutations=99, workers=1)
