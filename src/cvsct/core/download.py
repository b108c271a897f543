"""Download of one published file: checked against size and hashes, atomic, asked for beforehand.

Nothing here decides to download: the caller passes `DownloadOptions`, in which the user's consent
is a function.
"""

from __future__ import annotations

import hashlib
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError

from cvsct.core.errors import CvsctError, one_line
from cvsct.core.files import atomic_file
from cvsct.core.locks import file_lock
from cvsct.core.progress import Note, Progress, log_note, silent

TIMEOUT_S = 30.0
"""Longest wait for the server to answer or to send the next bytes."""

_CHUNK_BYTES = 2**16
_REPORT_EVERY_S = 0.2

Confirm = Callable[[str], bool]
"""Called with a question before a file is downloaded; returns whether the user consents."""


class DownloadError(CvsctError):
    """A file that cannot be downloaded, or that is not the one that was published."""


@dataclass(frozen=True)
class PublishedFile:
    """A file that others publish, and how it is recognized.

    Args:
        url: address of the file.
        n_bytes: its size.
        digests: its hashes as hexadecimal text, by the algorithm's name in `hashlib`.
        source: its authors and publisher, for an attribution.
        license: license that it is published under.
    """

    url: str
    n_bytes: int
    digests: Mapping[str, str]
    source: str
    license: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]

    @property
    def megabytes(self) -> str:
        """Size in MB (10^6 bytes), such as `58.9 MB`."""
        return f"{self.n_bytes / 1e6:.1f} MB"

    def is_same(self, path: Path) -> bool:
        """Whether a file on disk is the published one, by its size and hashes."""
        if path.stat().st_size != self.n_bytes:
            return False
        hashes = _new_hashes(self.digests)
        with path.open("rb") as stream:
            while chunk := stream.read(2**20):
                for digest in hashes.values():
                    digest.update(chunk)
        return _differing(hashes, self.digests) == ""


@dataclass(frozen=True)
class DownloadOptions:
    """What a caller permits to be downloaded, and where it wants to hear of it.

    Args:
        confirm: asks the user; None downloads nothing that a setting does not allow.
        dry_run: tell by `note` what would be downloaded, and download nothing.
        progress: called with `(task, done, total)`, in bytes.
        note: called with remarks.
    """

    confirm: Confirm | None = None
    dry_run: bool = False
    progress: Progress = silent
    note: Note = log_note


def download(file: PublishedFile, path: Path, progress: Progress = silent) -> None:
    """Download a file to `path` unless it is there; it appears only when size and hashes are right.

    Proxies are those of the environment (`https_proxy`, `no_proxy`) or of the system. Another
    process that downloads the same file is waited for. A process that is killed leaves a hidden
    file, which the next download removes.

    Raises:
        DownloadError: if the server cannot be reached or stops sending, if what it sends is not the
            published file, or if the folder cannot be written; nothing is left at `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_name(f".{path.name}.lock"), wait=True):
            if path.is_file():
                return
            for partial in path.parent.glob(f".{path.name}.*.partial"):
                partial.unlink(missing_ok=True)  # of a killed process: nobody else has the lock
            with atomic_file(path) as stream:
                _receive(file, stream, progress)
    except (OSError, HTTPException) as error:  # of urllib, a socket or the disk
        reason: object = error
        if isinstance(error, HTTPError):
            error.close()  # it is the server's answer, too
        elif isinstance(error, URLError):
            reason = error.reason
        raise DownloadError(
            f"{file.url}: cannot be downloaded into {path.parent} ({one_line(str(reason))})"
        ) from error


def _receive(file: PublishedFile, stream: BinaryIO, progress: Progress) -> None:
    """Write what the server sends, and check it.

    Raises:
        DownloadError: if it is not the published file.
    """
    task = f"downloading {file.name}"
    hashes = _new_hashes(file.digests)
    received, reported_s = 0, time.monotonic()
    opener = urllib.request.build_opener()  # with the proxies of now
    with opener.open(file.url, timeout=TIMEOUT_S) as response:
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) != file.n_bytes:
            raise DownloadError(
                f"{file.url}: the server offers {announced} bytes, expected {file.n_bytes}: this "
                "is not the published file; a proxy or a login page may answer in its place"
            )
        progress(task, 0, file.n_bytes)
        while received <= file.n_bytes and (chunk := response.read(_CHUNK_BYTES)):
            stream.write(chunk)
            for digest in hashes.values():
                digest.update(chunk)
            received += len(chunk)
            now_s = time.monotonic()
            if received < file.n_bytes and now_s - reported_s >= _REPORT_EVERY_S:
                progress(task, received, file.n_bytes)
                reported_s = now_s
    if received < file.n_bytes:
        raise DownloadError(
            f"{file.url}: the connection broke off after {received} of {file.n_bytes} bytes; "
            "nothing was kept, try it again"
        )
    wrong = "size" if received > file.n_bytes else _differing(hashes, file.digests)
    if wrong:
        raise DownloadError(
            f"{file.url}: what was sent has another {wrong} than the published file; nothing was "
            "kept: the file has changed, or somebody has altered it on its way"
        )
    progress(task, file.n_bytes, file.n_bytes)


def _new_hashes(algorithms: Mapping[str, str]) -> dict[str, Any]:
    return {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}


def _differing(hashes: Mapping[str, Any], expected: Mapping[str, str]) -> str:
    """Name of the first hash that differs; empty where all are as expected."""
    for name, digest in hashes.items():
        if digest.hexdigest() != expected[name]:
            return name
    return ""
