"""Goals of tests/faults in small, for CI; slow ones as docs/reference/reliability.md has them."""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cvsct.core.errors import ModelError
from cvsct.core.files import new_folder, write_atomic
from cvsct.evaluation.table import as_text
from cvsct.model.onnx_check import refuse_foreign
from tests.conftest import PACKAGE
from tests.faults.bombs import OPENERS, QUICK, bombs, opened
from tests.faults.disk_full import disk_full
from tests.faults.finding import Finding
from tests.faults.geometries import GEOMETRIES, geometries
from tests.faults.graphs import graph_of
from tests.faults.hostile_tags import VALUES, hostile_tags
from tests.faults.kills import both, killed_cohort, killed_series
from tests.faults.models import ALTERED, checkpoint_wrong, strangers_wrong, vgg_wrong, wrong_with
from tests.faults.mutated import mutated_files
from tests.faults.outputs import outputs
from tests.faults.workers import workers


def check(found: Finding, count: int) -> None:
    if found.skipped:
        pytest.skip(found.skipped)
    assert not found.failures
    assert found.count >= count


def test_some_kills_truncate_nothing(tmp_path: Path) -> None:
    check(killed_cohort(tmp_path, 2, seed=3, series=3), 2)


def test_a_killed_series_leaves_nothing(tmp_path: Path) -> None:
    check(killed_series(tmp_path, 1, seed=1), 1)


def test_full_disks_leave_nothing(tmp_path: Path) -> None:
    check(disk_full(tmp_path, 2, seed=0, commands=("harmonize", "train")), 4)


def test_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    check(mutated_files(tmp_path, 300, seed=2), 300)


def test_quick_bombs_are_refused(tmp_path: Path) -> None:
    check(opened(tmp_path, [make.__name__ for make in QUICK]), len(QUICK))


def test_hostile_tags_stay_text(tmp_path: Path) -> None:
    check(hostile_tags(tmp_path, 5, seed=0, values=VALUES[::6], report=False), 5)


@pytest.mark.parametrize("kind", ALTERED)
def test_an_altered_model_is_refused(tmp_path: Path, kind: str) -> None:
    assert not wrong_with(tmp_path, kind)


@pytest.mark.filterwarnings("ignore:.*pickle:UserWarning")
@pytest.mark.parametrize("goal", [checkpoint_wrong, vgg_wrong, strangers_wrong])
def test_nothing_in_a_folder_of_ours_is_executed(
    tmp_path: Path, goal: Callable[[Path], str]
) -> None:
    assert not goal(tmp_path)


def test_outputs_bring_no_new_error(tmp_path: Path) -> None:
    check(outputs(tmp_path, 2, seed=0), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("goal", "count"),
    [
        (both, 200), (workers, 200), (disk_full, 20), (mutated_files, 10_000),
        (bombs, len(OPENERS)), (hostile_tags, len(VALUES)), (geometries, len(GEOMETRIES)),
        (outputs, 1000),
    ],
)  # fmt: skip
def test_in_full(tmp_path: Path, goal: Callable[[Path, int, int], Finding], count: int) -> None:
    check(goal(tmp_path, count, 0), 0)


def test_a_graph_of_ours_is_taken_and_one_cut_anywhere_raises_nothing_else() -> None:
    whole = graph_of()
    refuse_foreign("a.onnx", whole)
    for length in range(len(whole)):
        try:
            refuse_foreign("a.onnx", whole[:length])
        except ModelError as error:
            assert str(error).startswith("a.onnx: the graph is no ONNX graph; ")


def test_temporary_files_are_private_and_final_ones_as_the_user_wants_them(tmp_path: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    modes: dict[str, int] = {}

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    with new_folder(tmp_path / "out") as partial:
        modes["folder"] = mode(partial)
        write_atomic(partial / "a.txt", "text")
    assert modes["folder"] == 0o700
    assert mode(tmp_path / "out") == 0o777 & ~umask
    assert mode(tmp_path / "out" / "a.txt") == 0o666 & ~umask


def test_a_temporary_file_follows_no_link(tmp_path: Path) -> None:
    """Somebody who may write there could lay one, for he knows the name."""
    other = tmp_path / "other"
    other.write_text("keep")
    (tmp_path / f".a.txt.{os.getpid()}.partial").symlink_to(other)
    write_atomic(tmp_path / "a.txt", "new")
    assert other.read_text() == "keep"
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("=1+1", "'=1+1"), ("@x", "'@x"), ("+cmd|x", "'+cmd|x"), ("-2+3+cmd|' /C calc'!A0", None),
        ("-0.5", "-0.5"), ("-0.5 (-0.7 to -0.2)", "-0.5 (-0.7 to -0.2)"), ("+3.1 %", "+3.1 %"),
        ("spectrum", "spectrum"), ("", ""),
    ],
)  # fmt: skip
def test_no_cell_is_a_formula(cell: str, shown: str | None) -> None:
    assert as_text(cell) == (f"'{cell}" if shown is None else shown)


FORBIDDEN = {
    "eval", "exec", "compile", "pickle.load", "pickle.loads", "marshal.loads", "yaml.load",
    "os.system", "os.popen", "dill.load", "joblib.load", "shelve.open", "tempfile.mktemp",
}  # fmt: skip
"""Whatever runs what it is given; `model.eval()` is PyTorch's and another thing."""


def test_no_source_executes_what_it_reads() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found += [f"{path.name} line {node.lineno}: {why}" for why in _unsafe(node)]
    assert found == []


def _unsafe(call: ast.Call) -> list[str]:
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    wrong = [name] if name in FORBIDDEN else []
    if name == "torch.load" and given.get("weights_only") != "True":
        wrong.append("torch.load without weights_only")
    if name == "np.load" and given.get("allow_pickle") != "False":
        wrong.append("np.load without allow_pickle=False")
    if given.get("shell", "False") != "False":
        wrong.append("a shell")
    return wrong


def test_what_is_unsafe_is_found() -> None:
    for text in ("eval('1')", "torch.load(f)", "np.load(f)", "subprocess.run(c, shell=True)"):
        (call,) = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        assert _unsafe(call)
