"""Atomic output: files and folders that appear complete, or not at all.

A file is written under a temporary name, flushed to disk and renamed, so that a kill or a full disk
never leaves a truncated file under its final name. Until then only the user can read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cvsct.core import platform
from cvsct.core.errors import UsageError
from cvsct.core.kinds import refuse_no_path


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_hash(config: Mapping[str, Any]) -> str:
    """sha256 of a configuration, as hexadecimal text."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """sha256 over the names and bytes of a folder's files, as hexadecimal text."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def refuse_missing(*paths: Path | None) -> None:
    """Refuse arguments that name paths which do not exist.

    Raises:
        UsageError: for the first of the paths that does not exist.
    """
    for path in paths:
        if path is not None and not path.exists():
            raise UsageError(f"{path}: no such file or folder")


def refuse_unwritable(path: Path, *, grows: bool = False) -> None:
    """Refuse an output path that cannot be written, before work is done for it.

    Nothing is written to find out; missing folders above the path would be made.

    Args:
        path: the file or folder.
        grows: whether a folder that is there already is filled; other folders are made beside
            their place and moved there.

    Raises:
        UsageError: if a file stands in the place of a folder, or the user may not write there.
    """
    place = path.absolute() if grows else path.absolute().parent
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if place.exists() and not place.is_dir():
        raise UsageError(f"{path}: {place} is a file, no folder; name another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(
            f"{path}: nothing can be written in {place}, for lack of permission; name another "
            "place, or have it permitted"
        )


def write_atomic(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Write a file atomically: it is complete, or it does not exist.

    The content goes to a temporary file, which is flushed to disk and renamed; then the folder is
    flushed.

    Args:
        private: whether the file may identify a patient; only the user can read it (mode 0600).

    Raises:
        OSError: if the disk is full or the folder cannot be written; no file is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with atomic_file(path, private=private) as stream:
            stream.write(data)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def atomic_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Create a file atomically: it gets its name only when the `with` block has succeeded.

    The block fills a temporary file beside it, which an error removes again; then that is flushed
    to disk and renamed, and the folder is flushed.

    Args:
        private: whether the file may identify a patient; only the user can read it (mode 0600).

    Yields:
        The temporary file, open for writing.

    Raises:
        OSError: if the disk is full or the folder cannot be written; no file is left behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a killed process that had this number
        with os.fdopen(platform.new_file(partial), "wb") as stream:
            yield stream
            stream.flush()
            if not private:
                platform.permit_as_usual(stream.fileno())
            os.fsync(stream.fileno())
        platform.rename(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        _name_instead(error, partial, path)
        raise
    platform.sync_folder(path.parent)


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write a value as indented JSON, atomically; NaN, which JSON does not have, is refused."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n", private=private)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create a folder atomically: it gets its name only when the `with` block has succeeded.

    The block fills a hidden folder beside it, which an error removes again. Hidden folders of
    killed runs are removed by the next run.

    Yields:
        The hidden folder to fill.

    Raises:
        UsageError: if `path` exists and is not an empty folder.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.partial-"
    for leftover in path.parent.glob(prefix + "*"):
        pid = leftover.name.removeprefix(prefix)
        if pid.isdigit() and not platform.process_is_alive(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
    partial = path.parent / f"{prefix}{os.getpid()}"
    try:
        partial.mkdir(mode=0o700)
    except OSError as error:
        _name_instead(error, partial, path)
        raise
    try:
        yield partial
        partial.chmod(partial.stat().st_mode | (0o777 & ~platform.umask()))
        if path.exists():
            path.rmdir()
        platform.rename(partial, path)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        _name_instead(error, partial, path)
        raise
    platform.sync_folder(path.parent)


def _name_instead(error: BaseException, partial: Path, path: Path) -> None:
    """Let an error about a hidden file or folder name the one that the user gave."""
    if isinstance(error, OSError) and error.filename == str(partial):
        error.filename = str(path)


def made_folder(path: Path | str) -> Path:
    """The folder at a path, made where there is none.

    Raises:
        UsageError: if it is no path, or a file stands in the way.
    """
    refuse_no_path(folder=path)
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{folder}: a file stands in its way; name a folder") from None
    return folder


def refuse_existing(path: Path) -> None:
    """Refuse an output path that already holds something.

    Raises:
        UsageError: if `path` is a file, or a folder that is not empty.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise UsageError(f"{path}: exists already; name a new folder, or remove this one first")


def refuse_no_place(path: Path) -> None:
    """Refuse an output path at which nothing new can be made: `refuse_existing`, or unwritable.

    Raises:
        UsageError: if `path` holds something already, or cannot be written.
    """
    refuse_existing(path)
    refuse_unwritable(path)


class JsonLines:
    """Log file with one JSON object per line, flushed after each so that a killed run keeps it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **fields: Any) -> None:
        """Append one object."""
        with self._path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(canonical_json(fields) + "\n")
