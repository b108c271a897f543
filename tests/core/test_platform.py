from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cvsct.core import platform


def test_a_name_is_given_once_with_and_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError("not supported")

    for name, link in (("links", os.link), ("none", no_links)):
        monkeypatch.setattr(os, "link", link)
        for text, taken in (("first", False), ("second", True)):
            (tmp_path / "own").write_text(text, encoding="utf-8")
            given = platform.rename_unless_taken(tmp_path / "own", tmp_path / name)
            assert given is not taken
            assert not (tmp_path / "own").exists()
        assert (tmp_path / name).read_text(encoding="utf-8") == "first"


def test_a_rename_waits_for_who_has_the_file_open_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").touch()
    replace, refused = Path.replace, []

    def busy(source: Path, target: Path) -> Path:
        if len(refused) < 2:
            refused.append(source)
            raise PermissionError(13, "used by another process")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", busy)
    if os.name == "posix":  # there it is a true refusal
        with pytest.raises(PermissionError):
            platform.rename(tmp_path / "a", tmp_path / "b")
    refused.clear()
    with monkeypatch.context() as patched:
        patched.setattr(platform.os, "name", "nt")
        platform.rename(tmp_path / "a", tmp_path / "b")
    assert len(refused) == 2
    assert (tmp_path / "b").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own there")
def test_a_link_is_refused_whether_or_not_opening_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.close(platform.open_no_link(tmp_path / "file"))
    with pytest.raises(OSError):
        platform.open_no_link(tmp_path / "link")
    monkeypatch.delattr(os, "O_NOFOLLOW", raising=False)
    with pytest.raises(OSError, match="is a link"):
        platform.open_no_link(tmp_path / "link")


def test_a_process_lives_until_it_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert platform.process_is_alive(process.pid)
    assert platform.process_is_alive(os.getpid())
    process.communicate(b"\n")
    assert not platform.process_is_alive(process.pid)


def test_without_signal_masks_ctrl_c_is_ignored_by_the_children_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    platform.ignore_ctrl_c()
    if hasattr(signal, "pthread_sigmask"):
        assert signal.getsignal(signal.SIGINT) is before, "it is blocked"
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)
    try:
        with platform.ctrl_c_kept_from_children():
            platform.ignore_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_folder_that_cannot_be_opened_is_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    platform.sync_folder(tmp_path)
    assert len(synced) == hasattr(os, "O_DIRECTORY")
    monkeypatch.delattr(os, "O_DIRECTORY", raising=False)
    platform.sync_folder(tmp_path / "not there")
