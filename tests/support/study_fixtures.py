"""A study that is planned, run and reported once for all tests; a test that changes it copies.

What it is made with is imported when it is asked for: most tests need no study.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cvsct

if TYPE_CHECKING:
    from cvsct.study.report import StudyReport
    from tests.support.studies import Done, Places, Planned


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Scans, masks and tables of three scanners, under a path with a space and an umlaut."""
    from tests.support.studies import write_study

    return write_study(tmp_path_factory.mktemp("study") / "Daten für alle")


@pytest.fixture(scope="session")
def planned(places: Places) -> Planned:
    """The study, planned."""
    from tests.support.studies import Planned

    notes: list[str] = []
    out = places.root / "study planned"
    plan = cvsct.plan_study(places.scans, out, note=notes.append, **places.plan_words)
    return Planned(plan, tuple(notes))


@pytest.fixture(scope="session")
def done(planned: Planned, places: Places) -> Done:
    """The study, run."""
    from tests.support.studies import Done, copy_study

    folder = copy_study(planned.folder, places.root / "study done")
    notes: list[str] = []
    result = cvsct.run_study(folder, workers=1, note=notes.append)
    return Done(folder, result, tuple(notes))


@pytest.fixture(scope="session")
def quick(planned: Planned, places: Places) -> Path:
    """The study, planned with a method whose models take no time."""
    from tests.support.studies import copy_study, set_option

    folder = copy_study(planned.folder, places.root / "study quick")
    set_option(folder, 'method = "spectrum"', 'method = "histogram"')
    return folder


@pytest.fixture(scope="session")
def quick_done(quick: Path, places: Places) -> Path:
    """That one, run without a disturbance."""
    from tests.support.studies import copy_study

    folder = copy_study(quick, places.root / "study quick done")
    cvsct.run_study(folder, workers=1)
    return folder


@pytest.fixture(scope="session")
def reported(done: Done, places: Places) -> StudyReport:
    """The report of a copy of the study that was run, with an outcome."""
    from tests.support.studies import copy_study

    folder = copy_study(done.folder, places.root / "study reported")
    return cvsct.report_study(folder, outcome="relapse", permutations=99, workers=1)
