"""The files under a path: linked folders are followed, each real folder and file is met once."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from cvsct.io.left_out import (
    BROKEN_LINK,
    HIDDEN,
    LEADS_BACK,
    OWN,
    SECOND_NAME,
    SPECIAL,
    UNREADABLE,
    Tally,
)

_OWN = re.compile(
    r"(manifest|plan|timestamp|journal|series)(-\d+of\d+)?\.(json|csv|sqlite(-wal|-shm)?)"
    r"|uid_map\.json"
)
"""Names of what this program writes beside derived series."""

_BROKEN = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_Key = tuple[int, int] | str


def walk(path: Path, tally: Tally) -> list[Path]:
    """Regular files under a path in a fixed order, real folders before linked ones.

    Hidden files and folders are not looked at. A file that is there under two names, by a link or
    for real, is met once.

    Args:
        tally: takes links that lead nowhere, back, or to what was read already, and the like.
    """
    if not path.is_dir():
        return [path]
    files: list[Path] = []
    folders: set[_Key] = set()
    met: set[_Key] = set()
    above = {_key(parent, parent.stat()) for parent in path.resolve().parents}
    links: deque[Path] = deque()
    real = [path]
    while real or links:
        folder = real.pop() if real else links.popleft()
        try:
            key = _key(folder, folder.stat())
            if key in folders or key in above:
                back = key in above or _leads_back(folder, key)
                tally.add(LEADS_BACK if back else SECOND_NAME, folder)
                continue
            folders.add(key)
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError:
            tally.add(UNREADABLE, folder)
            continue
        inner: list[Path] = []
        for place, mode, entry_key in _entries(entries, tally):
            if stat.S_ISDIR(mode):
                (links.append if place.is_symlink() else inner.append)(place)
            elif entry_key in met:
                tally.add(SECOND_NAME, place)
            else:
                met.add(entry_key)
                files.append(place)
        real += reversed(inner)
    return files


def _entries(entries: list[os.DirEntry[str]], tally: Tally) -> Iterator[tuple[Path, int, _Key]]:
    """Folders and regular files, each with its mode and the key that identifies it.

    Links come after what is there for real, which gives a file its name.
    """
    for entry in sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)):
        place = Path(entry.path)
        if entry.name.startswith("."):
            tally.add(HIDDEN, place)
            continue
        try:
            about = entry.stat()
        except OSError as error:
            broken = entry.is_symlink() and error.errno in _BROKEN
            tally.add(BROKEN_LINK if broken else UNREADABLE, place)
            continue
        if stat.S_ISREG(about.st_mode) and _OWN.fullmatch(entry.name):
            tally.add(OWN, place)
        elif stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode):
            yield place, about.st_mode, _key(place, about)
        else:
            tally.add(SPECIAL, place)


def _key(path: Path, about: os.stat_result) -> _Key:
    """Key of a file or folder that is the same under all its names."""
    return (about.st_dev, about.st_ino) if about.st_ino else os.path.realpath(path)


def _leads_back(link: Path, key: _Key) -> bool:
    """Whether a linked folder is one of those on the way to it."""
    return any(_key(parent, parent.stat()) == key for parent in link.absolute().parents)
