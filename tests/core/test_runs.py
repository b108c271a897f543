from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvsct.core.errors import UsageError
from cvsct.core.files import (
    config_hash,
    new_folder,
    refuse_unwritable,
    write_atomic,
    write_json,
)
from cvsct.core.manifest import Manifest
from cvsct.core.seeding import random_stream


def test_streams_repeat_by_seed_and_differ_by_name() -> None:
    first = random_stream(1, "a").random(4)
    assert np.array_equal(first, random_stream(1, "a").random(4))
    assert not np.array_equal(first, random_stream(1, "b").random(4))
    assert not np.array_equal(first, random_stream(2, "a").random(4))


def test_a_folder_appears_only_on_success(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), new_folder(out) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(out) as folder:
        (folder / "whole").write_text("x")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["whole"]


def test_an_output_that_exists_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(UsageError, match="exists already"), new_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "mine").read_text() == "x"


def test_an_output_that_cannot_be_written_is_refused_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "there").mkdir()
    for grows in (False, True):
        refuse_unwritable(tmp_path / "a" / "b", grows=grows)
        refuse_unwritable(tmp_path / "there", grows=grows)
        with pytest.raises(UsageError, match=r"b: .*file is a file, no folder; name another"):
            refuse_unwritable(tmp_path / "file" / "a" / "b", grows=grows)
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    refuse_unwritable(tmp_path / "there", grows=True)
    for path, grows in ((tmp_path / "there", False), (tmp_path / "new", True)):
        with pytest.raises(UsageError, match=f"{path.name}: nothing can be written in "):
            refuse_unwritable(path, grows=grows)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "there"}


def test_no_error_names_a_hidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cvsct.core.platform.new_file", denied)
    with pytest.raises(PermissionError, match="/out'"):
        write_atomic(tmp_path / "out", "x")
    monkeypatch.setattr(Path, "mkdir", lambda path, **_: path == tmp_path or denied(path))
    with pytest.raises(PermissionError, match="/out'"), new_folder(tmp_path / "out"):
        pass


def test_what_a_killed_run_left_is_swept_away(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (tmp_path / f".out.partial-{dead}").mkdir()
    (tmp_path / f".out.partial-{os.getppid()}").mkdir()
    with new_folder(tmp_path / "out"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"out", f".out.partial-{os.getppid()}"}


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_json_with_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"value": float("nan")})


def test_a_manifest_says_what_ran(tmp_path: Path) -> None:
    manifest = Manifest("train x", {"b": 1, "a": 2}, inputs={"source": ["1.2"]})
    with manifest.timed("reading"):
        pass
    manifest.write(tmp_path)
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert found["config_sha256"] == config_hash({"a": 2, "b": 1})
    assert found["inputs"] == {"source": ["1.2"]}
    assert set(found["timings_s"]) == {"reading"}
    assert found["versions"]["numpy"] == np.__version__
