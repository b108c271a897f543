from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cvsct.core.errors import UsageError
from cvsct.core.locks import LockedError, file_lock
from cvsct.core.resumable import LOCK, locked_output

HOLD = """
import sys, time
from pathlib import Path
from cvsct.core.resumable import locked_output
with locked_output(Path(sys.argv[1]), {"a": 1}, "simulation"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    for _ in range(2):  # being refused frees nothing
        with (
            pytest.raises(UsageError, match="another simulation is at work in this folder"),
            locked_output(out, {"a": 1}, "simulation"),
        ):
            pass
    process.kill()
    process.wait()
    process.stdout.close()
    assert (out / LOCK).exists(), "a kill leaves the file, which locks nothing"
    with locked_output(out, {"a": 1}, "simulation"):
        assert (out / LOCK).exists()
    assert [path.name for path in out.iterdir()] == ["plan.json"]


def test_a_lock_without_a_plan_of_a_killed_run_is_no_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with locked_output(tmp_path, {"a": 1}, "simulation"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_parts_of_a_folder_do_not_lock_each_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        locked_output(out, {}, "cohort", part="1of2"),
        locked_output(out, {}, "cohort", part="2of2"),
        pytest.raises(UsageError, match="at work"),
        locked_output(out, {}, "cohort", part="1of2"),
    ):
        pass


def test_one_waits_for_the_other_and_never_both_are_in(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(5):
            with file_lock(tmp_path / "lock", wait=True):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] and inside == [0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX's")
def test_a_disk_without_locks_is_an_error_and_no_lock_by_presence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(OSError, match="not implemented") as raised, file_lock(tmp_path / "lock"):
        pass
    assert not isinstance(raised.value, LockedError)
