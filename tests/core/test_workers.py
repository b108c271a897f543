"""Worker processes do not run the script again that started them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvsct.core.workers import SCRIPT_REMEDY, Processes, threads, work_in

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
from tests.core.test_workers import twice
from cvsct.core.workers import Processes, work_in

print("the script runs")
for report in work_in(Processes(twice, 1), [21]):
    print(report.kind, report.result, report.message)
"""

OWN_CLASS = """
from tests.core.test_workers import twice
from cvsct.core.workers import Processes, work_in

class Own(int):
    pass

if __name__ == "__main__":
    for report in work_in(Processes(twice, 1), [Own(4)]):
        print(report.kind, report.result, report.message)
"""


def test_an_error_leaves_work_undone_that_waits() -> None:
    begun: list[int] = []
    goes_on = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        goes_on.wait(10)

    with pytest.raises(KeyboardInterrupt), threads(1) as pool:
        futures = [pool.submit(work, number) for number in range(3)]
        raise KeyboardInterrupt
    goes_on.set()
    assert all(future.cancelled() for future in futures[1:])
    assert begun in ([], [0])


def twice(item: int) -> Iterator[int]:
    yield 1
    return 2 * item


def _run(arguments: list[str], text: str = "") -> str:
    """Standard output of Python at the repository's root."""
    return subprocess.run(
        [sys.executable, *arguments], input=text, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("source", ["a file", "standard input"])
def test_a_script_needs_no_guard(tmp_path: Path, source: str) -> None:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    told = _run([str(file)]) if source == "a file" else _run(["-"], SCRIPT)
    assert told == "the script runs\nstep None \ndone 42 \n"


def test_what_a_script_defines_itself_is_worked_with_below_its_guard(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(OWN_CLASS)
    assert "done 8" in _run([str(file)])


def test_without_a_guard_the_remedy_is_told(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(OWN_CLASS.replace('if __name__ == "__main__":', "if True:"))
    assert f"died None its process could not start; {SCRIPT_REMEDY}" in _run([str(file)])


def dies(item: int) -> Iterator[int]:
    os._exit(9)
    yield item


def test_an_item_that_kills_every_process_stops_no_other() -> None:
    (report,) = work_in(Processes(dies, 2), [1], tries=4)
    assert report.kind == "died"


def test_three_items_that_kill_their_processes_in_a_row_stop_all_work() -> None:
    kinds = [report.kind for report in work_in(Processes(dies, 1), [1, 2, 3])]
    assert kinds == ["died", "died", "fatal"]
