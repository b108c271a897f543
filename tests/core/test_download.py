"""Downloads from a server on this machine: what arrives is the published file, or nothing does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cvsct.core import download as module
from cvsct.core.download import DownloadError, PublishedFile, download
from tests.conftest import PACKAGE
from tests.support.file_server import FileServer, serve

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with serve(CONTENT) as state:
        yield state


@pytest.fixture
def published(server: FileServer) -> PublishedFile:
    digests = {name: hashlib.new(name, CONTENT).hexdigest() for name in ("md5", "sha256")}
    return PublishedFile(f"{server.address}/w.h5", len(CONTENT), digests, "authors", "license")


def test_a_file_arrives_whole_with_progress_and_once(
    server: FileServer, published: PublishedFile, tmp_path: Path
) -> None:
    path, told = tmp_path / "new" / "w.h5", []
    download(published, path, lambda task, done, total: told.append((task, done, total)))
    assert path.read_bytes() == CONTENT
    assert published.is_same(path)
    assert list(path.parent.iterdir()) == [path]
    assert told[0] == ("downloading w.h5", 0, len(CONTENT))
    assert told[-1] == ("downloading w.h5", len(CONTENT), len(CONTENT))
    download(published, path)
    assert server.requests == ["/w.h5"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": 404}, "cannot be downloaded into .*404: Not Found"),
        ({"status": 500}, "cannot be downloaded into .*Internal Server Error"),
        ({"sent_bytes": 300_000}, "broke off after 300000 of 512000 bytes.*try it again"),
        ({"sent_bytes": 0, "announced_bytes": None}, "broke off after 0 of 512000"),
        ({"content": b"x" + CONTENT[1:]}, "another md5 than the published file"),
        ({"content": CONTENT + b"x", "announced_bytes": None}, "another size than the published"),
        ({"content": b"login", "announced_bytes": 5}, "offers 5 bytes, expected 512000.*proxy"),
    ],
)
def test_what_is_not_the_published_file_leaves_nothing(
    server: FileServer,
    published: PublishedFile,
    tmp_path: Path,
    change: dict[str, Any],
    words: str,
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(DownloadError, match=words) as caught:
        download(published, tmp_path / "w.h5")
    assert published.url in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_every_hash_counts(published: PublishedFile, tmp_path: Path) -> None:
    forged = replace(published, digests={**published.digests, "sha256": "0" * 64})
    with pytest.raises(DownloadError, match="another sha256"):
        download(forged, tmp_path / "w.h5")
    (tmp_path / "w.h5").write_bytes(CONTENT)
    assert published.is_same(tmp_path / "w.h5")
    assert not forged.is_same(tmp_path / "w.h5")
    assert not replace(published, n_bytes=1).is_same(tmp_path / "w.h5")


def test_without_a_network_the_error_names_the_address(
    published: PublishedFile, tmp_path: Path
) -> None:
    for url in ("http://127.0.0.1:9/w.h5", "http://no-such-host.invalid/w.h5"):
        with pytest.raises(DownloadError, match="cannot be downloaded") as caught:
            download(replace(published, url=url), tmp_path / "w.h5")
        assert url in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_server_that_falls_silent_is_given_up(
    server: FileServer,
    published: PublishedFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    server.stall, server.sent_bytes = True, 1000
    with pytest.raises(DownloadError, match="timed out"):
        download(published, tmp_path / "w.h5")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(published: PublishedFile, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot be downloaded into .*file"):
        download(published, tmp_path / "file" / "w.h5")


def test_a_proxy_of_the_environment_is_asked(
    server: FileServer,
    published: PublishedFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("no_proxy", "")
    far = replace(published, url="http://published.invalid/w.h5")
    download(far, tmp_path / "w.h5")
    assert server.requests == ["http://published.invalid/w.h5"]
    assert (tmp_path / "w.h5").read_bytes() == CONTENT


def test_ctrl_c_leaves_nothing(published: PublishedFile, tmp_path: Path) -> None:
    def interrupted(task: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(published, tmp_path / "w.h5", interrupted)
    assert not list(tmp_path.iterdir())


def test_a_killed_download_leaves_no_file_and_the_next_one_succeeds(
    server: FileServer, published: PublishedFile, tmp_path: Path
) -> None:
    server.stall, server.sent_bytes = True, 300_000
    code = (
        "import sys; from pathlib import Path\n"
        "from cvsct.core.download import PublishedFile, download\n"
        "file = PublishedFile(sys.argv[1], 512000, {'sha256': sys.argv[2]}, '', '')\n"
        "download(file, Path(sys.argv[3]))\n"
    )
    words = [published.url, published.digests["sha256"], str(tmp_path / "w.h5")]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    with subprocess.Popen([sys.executable, "-c", code, *words], env=environment) as process:
        assert server.stalled.wait(60)
        process.kill()
    server.released.set()
    assert not (tmp_path / "w.h5").exists()
    server.stall, server.sent_bytes = False, None
    download(published, tmp_path / "w.h5")
    assert (tmp_path / "w.h5").read_bytes() == CONTENT
    assert not list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.glob(".*.partial"))
