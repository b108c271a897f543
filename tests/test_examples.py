"""Examples of the public names, of README and of docs/reference/python.md run as they stand."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import cvsct
from cvsct.simulation.run import run_simulation
from tests.support.benchmarks import evaluate_nothing
from tests.support.fake_scanner import FAKE
from tests.support.feature_tables import Effects, cohort

PAGES = ("README.md", "docs/reference/python.md")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def model(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the scans at hand."""
    out = tmp_path_factory.mktemp("examples") / "model"
    cvsct.train("spectrum", scans / "sharp", scans / "soft", out)
    return out


def documented() -> list[tuple[str, str]]:
    """Public names, and methods of public classes, with the example of each."""
    found = []
    for name in cvsct.__all__:
        thing = getattr(cvsct, name)
        found.append((name, inspect.getdoc(thing) or ""))
        if inspect.isclass(thing):
            found += [
                (f"{name}.{member}", inspect.getdoc(getattr(thing, member)) or "")
                for member, value in vars(thing).items()
                if not member.startswith("_") and callable(getattr(value, "__func__", value))
            ]
    return [(name, text) for name, text in found if ">>>" in text]


def test_every_public_function_has_an_example() -> None:
    functions = {name for name in cvsct.__all__ if inspect.isfunction(getattr(cvsct, name))}
    assert functions <= {name for name, _ in documented()}


def test_completion_offers_the_public_names_alone() -> None:
    assert [name for name in dir(cvsct) if not name.startswith("_")] == sorted(cvsct.__all__)


def study_places(text: str, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Path]:
    """Scans of two scanners, a study of them, and one that was run, where an example has them."""
    from tests.support.studies import GE, SIEMENS, copy_study, write_scan

    found: dict[str, Path] = {}
    if "finished_study" in text:
        done = request.getfixturevalue("done")
        found["finished_study"] = copy_study(done.folder, tmp_path / "finished")
    if "two_scanners" in text or "run_study(study" in text:
        found["two_scanners"] = tmp_path / "two"
        for number, scanner in enumerate((SIEMENS, GE), start=1):
            folder = tmp_path / "two" / str(number)
            write_scan(folder, scanner, f"P{number}", number, trunk_mm=72.0)
    if "run_study(study" in text:
        found["study"] = tmp_path / "study"
        rules = {"grouping": {"min_patients": 1}}
        cvsct.plan_study(found["two_scanners"], found["study"], rules=rules, workers=1)
    return found


@pytest.mark.parametrize(("name", "text"), documented(), ids=[name for name, _ in documented()])
def test_docstring_examples_run(
    name: str, text: str, scans: Path, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """Bodies, scanners and evaluations of many minutes are not those of the example."""
    data = tmp_path / "data"
    if name == "simulate":
        monkeypatch.setattr(
            "cvsct.api.simulate.run_simulation", partial(run_simulation, builders=FAKE)
        )
    if name == "benchmark":
        evaluate_nothing(monkeypatch)
        for part in ("train", "test"):
            for side, folder in (("A", "sharp"), ("B", "soft")):
                shutil.copytree(scans / folder, data / part / side)
    places = {
        "cvsct": cvsct, "np": np, "scans_of_a": scans / "sharp", "scans_of_b": scans / "soft",
        "model": model, "out": tmp_path / "out", "data": data,
        **study_places(text, tmp_path, request),
        "table": cohort((24, 24), Effects(scanner=2.0, population=1.0), seed=1),
    }  # fmt: skip
    test = doctest.DocTestParser().get_doctest(text, places, name, None, 0)
    said: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def blocks() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        found += [(page, code) for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    return found


@pytest.mark.parametrize(("page", "code"), blocks(), ids=[page for page, _ in blocks()])
def test_python_blocks_of_pages_run(
    page: str, code: str, scans: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in (("series_of_A", "sharp"), ("scans_of_A", "sharp"), ("scans_of_B", "soft")):
        shutil.copytree(scans / folder, tmp_path / name)
    for name in ("model", "ge-lung-siemens-bl64-spectrum"):  # a folder comes before a bundled model
        shutil.copytree(model, tmp_path / name)
    shutil.copytree(scans / "sharp", tmp_path / "scans/test/ge-revolution-evo")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {})
