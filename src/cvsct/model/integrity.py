"""The files of a model folder, each read once and checked before anything is made of it.

Whoever can write a model can write its hashes too: they find damage, not malice. So what a file
may do is bounded as well: its size, where it may lie, and what an ONNX graph may refer to.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from cvsct.core.errors import ModelError
from cvsct.core.platform import open_no_link

MAX_SUMS_BYTES = 2**20


def read_files(
    folder: Path, sums_file: str, limits: Mapping[str, int], optional: Collection[str] = ()
) -> tuple[str, dict[str, bytes]]:
    """The sums, and the content of each of a model's files, found to be as the sums say.

    Other files may lie in the folder, a training's checkpoints among them; none is opened.

    Args:
        limits: bytes that a file may have, by name.
        optional: which of them a model may be without.

    Raises:
        ModelError: if one is missing, altered, too large, or not a file of this folder.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder; name one that `cvsct train` has written")
    if not (folder / sums_file).exists():
        raise ModelError(
            f"{folder}: no {sums_file}, so not a finished model; finish it with "
            "`cvsct train ... --resume`, or name another folder"
        )
    try:
        sums = _content(folder, sums_file, MAX_SUMS_BYTES).decode("ascii")
    except UnicodeDecodeError:
        raise ModelError(f"{folder}: {sums_file} is no list of hashes; copy it again") from None
    listed = {name: digest for digest, _, name in (x.partition("  ") for x in sums.splitlines())}
    foreign = listed.keys() - limits.keys()
    if foreign:
        raise ModelError(
            f"{folder}: {sums_file} lists {len(foreign)} files that no model has; copy the model "
            "again from its source"
        )
    found = {}
    for name, limit in limits.items():
        if name in optional and name not in listed:
            continue
        found[name] = _content(folder, name, limit)
        if hashlib.sha256(found[name]).hexdigest() != listed.get(name):
            raise ModelError(
                f"{folder}: {name} does not match its hash in {sums_file}; the model was altered "
                "or damaged, copy it again from its source"
            )
    return sums, found


def _content(folder: Path, name: str, limit: int) -> bytes:
    """A regular file's bytes; a link is not followed, for it can lead anywhere."""
    try:
        descriptor = open_no_link(folder / name)
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: {name} is missing; copy the whole model folder again"
        ) from None
    except OSError as error:
        link = (folder / name).is_symlink()
        reason = "a link, expected a file" if link else error.strerror
        raise ModelError(
            f"{folder}: {name} cannot be read ({reason}); copy the model with the files themselves"
        ) from None
    with os.fdopen(descriptor, "rb") as stream:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ModelError(f"{folder}: {name} is no regular file; copy the model folder again")
        if about.st_size > limit:
            raise ModelError(
                f"{folder}: {name} has {about.st_size} bytes, no model more than {limit}; "
                "copy it again from its source"
            )
        return stream.read(about.st_size)  # `limit` would be allocated
