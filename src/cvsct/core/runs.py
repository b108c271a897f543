"""What every run leaves behind: output folders, manifests, logs, seeds.

Files appear whole or not at all: each is written under a temporary name, flushed to disk and
renamed, so that a kill or a full disk never leaves a truncated file under its final name. Until
then nobody but the user can read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cvsct import __version__
from cvsct.core.errors import UsageError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_LIBRARIES = ("numpy", "scipy", "pydicom", "numba", "torch", "openvino", "radiomics", "skimage")

Progress = Callable[[str, int, int], None]
"""Told `(what, done, total)` as long work proceeds; the command line draws it."""

Note = Callable[[str], None]
"""Told what a user should know that is no error; the command line prints it."""

PRESETS = ("paper", "stable", "cpu")
"""What a training may be asked to be; a method that knows no presets notes it."""


def refuse_unknown_preset(name: str) -> None:
    """Refuse a preset that is none.

    Raises:
        UsageError: with the list of those there are.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")


def silent(what: str, done: int, total: int) -> None:
    """Progress that goes nowhere."""


def log_note(message: str) -> None:
    """A note that goes into the log, as a warning."""
    logger.warning(message)


@dataclass(frozen=True)
class TrainingRequest:
    """What `cvsct train` asks of a method.

    Args:
        method: row of the METHODS table.
        out: the model folder; trainings that checkpoint keep their state in it.
        settings: the row's own settings, then the user's `--set key=value` over them.
        preset: `paper`, `stable` or `cpu`.
        max_steps: stop after so many optimiser steps.
        max_minutes: stop after so much wall time.
        resume: go on from the checkpoint in `out`.
    """

    method: str
    out: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "cpu"
    max_steps: int | None = None
    max_minutes: float | None = None
    seed: int = 0
    resume: bool = False
    progress: Progress = silent
    note: Note = log_note


def is_first_rank() -> bool:
    """Whether this process is the one that writes and reports: all but torchrun's further ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or os.environ.get("RANK", "0") == "0"


def random_stream(seed: int, *names: str) -> np.random.Generator:
    """An independent random stream for each purpose named, the same for the same seed."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], dtype=np.uint32).tolist()])


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


def write_atomic(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Write a file so that it is never seen half-written.

    Temporary name, flush to disk, rename, flush the folder's entry.

    Args:
        private: may identify a patient; the user alone can read it (mode 0600).

    Raises:
        OSError: if the disk is full or the folder cannot be written; no file is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a killed process that had this number
        with os.fdopen(os.open(partial, _NEW, 0o600), "wb") as stream:
            stream.write(data)
            stream.flush()
            if not private:
                os.fchmod(stream.fileno(), 0o666 & ~_UMASK)
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_UMASK = _umask()
"""Of this process when it began; the system tells it only to who changes it."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write a value as indented JSON, atomically. NaN is refused: it is not JSON."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n", private=private)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it outlives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block has succeeded.

    The block fills a hidden folder beside it; an error removes that again. What a killed run
    left there is swept away by the next one.

    Raises:
        UsageError: if `path` exists and is not an empty folder.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.partial-"
    for left in path.parent.glob(prefix + "*"):
        pid = left.name.removeprefix(prefix)
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    partial = path.parent / f"{prefix}{os.getpid()}"
    partial.mkdir(mode=0o700)
    try:
        yield partial
        partial.chmod(partial.stat().st_mode | (0o777 & ~_UMASK))
        if path.exists():
            path.rmdir()
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(path.parent)


def refuse_existing(path: Path) -> None:
    """Refuse an output path that already holds something.

    Raises:
        UsageError: if `path` is a file, or a folder that is not empty.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise UsageError(f"{path}: exists already; name a new folder, or remove this one first")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass
class Manifest:
    """What made an output folder: enough to repeat it and to tell whether it was repeated.

    Args:
        command: the cvsct command that ran.
        config: every setting that shapes the result.
        inputs: Series Instance UIDs by role, never patient attributes.
        figures: what was measured.
        model_sha256: the model's hash, where one was used or made.
        local: patterns of files beside the manifest that may identify a patient; they are readable
            for the user alone. The manifest and all other files may be shared.
    """

    command: str
    config: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    model_sha256: str = ""
    local: Sequence[str] = ()
    started: float = field(default_factory=time.time)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the block's wall time to `timings_s[name]`."""
        start = time.perf_counter()
        yield
        self.timings_s[name] = self.timings_s.get(name, 0.0) + time.perf_counter() - start

    def write(self, folder: Path, name: str = MANIFEST) -> None:
        """Write `manifest.json`, or a part's of another name, into the folder."""
        write_json(
            folder / name,
            {
                "cvsct": __version__,
                "command": self.command,
                "research_use_only": True,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
                "versions": _versions(),
                "config": self.config,
                "config_sha256": config_hash(self.config),
                "model_sha256": self.model_sha256,
                "inputs": self.inputs,
                "figures": self.figures,
                **({"may_identify_patients": list(self.local)} if self.local else {}),
                "timings_s": {name: round(value, 3) for name, value in self.timings_s.items()},
            },
        )


def _versions() -> dict[str, str]:
    """Versions of Python and of the libraries this run has loaded."""
    loaded = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in _LIBRARIES:
        module = sys.modules.get(name)
        if module is not None:
            loaded[name] = str(getattr(module, "__version__", "unknown"))
    return loaded


class JsonLines:
    """A log of one JSON object a line, flushed line by line; a killed run keeps what it wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **fields: Any) -> None:
        """Append one object."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(canonical_json(fields) + "\n")
