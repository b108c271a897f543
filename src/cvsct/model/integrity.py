"""Integrity of a model folder: each file is read once and checked before it is used.

Whoever can write a model can write its hashes too: they find damage, not malice. So what a file
may do is bounded as well: its size, where it may lie, and what an ONNX graph may refer to.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from cvsct.core.errors import ModelError
from cvsct.core.platform import read_regular_file

MAX_SUMS_BYTES = 2**20


def read_files(
    folder: Path, sums_file: str, limits: Mapping[str, int], optional: Collection[str] = ()
) -> tuple[str, dict[str, bytes]]:
    """Read the files of a model and check them against their hashes.

    Other files may lie in the folder, a training's checkpoints among them; none is opened.

    Args:
        folder: of the model.
        sums_file: name of the list of hashes.
        limits: largest size in bytes of each file, by name.
        optional: names of files that a model may lack.

    Returns:
        The text of the list of hashes, and the content of each file by name.

    Raises:
        ModelError: if a file is missing, altered, too large, or not a file of this folder.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder; name one that `cvsct train` has written")
    if not (folder / sums_file).exists():
        raise ModelError(
            f"{folder}: no {sums_file}, so not a finished model; finish it with "
            "`cvsct train ... --resume`, or name another folder"
        )
    try:
        sums = _read_regular_file(folder, sums_file, MAX_SUMS_BYTES).decode("ascii")
    except UnicodeDecodeError:
        raise ModelError(f"{folder}: {sums_file} is no list of hashes; copy it again") from None
    listed = {
        name: digest for digest, _, name in (line.partition("  ") for line in sums.splitlines())
    }
    foreign = listed.keys() - limits.keys()
    if foreign:
        raise ModelError(
            f"{folder}: {sums_file} lists {len(foreign)} files that no model has; copy the model "
            "again from its source"
        )
    contents = {}
    for name, limit in limits.items():
        if name in optional and name not in listed:
            continue
        contents[name] = _read_regular_file(folder, name, limit)
        if hashlib.sha256(contents[name]).hexdigest() != listed.get(name):
            raise ModelError(
                f"{folder}: {name} does not match its hash in {sums_file}; the model was altered "
                "or damaged, copy it again from its source"
            )
    return sums, contents


def _read_regular_file(folder: Path, name: str, limit: int) -> bytes:
    """Read a regular file of the folder; links are refused, as they can lead anywhere."""
    try:
        return read_regular_file(folder / name, limit)
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: {name} is missing; copy the whole model folder again"
        ) from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ModelError(
                f"{folder}: {name} has {error.strerror}, no model more than {limit}; "
                "copy it again from its source"
            ) from None
        raise ModelError(
            f"{folder}: {name} cannot be read ({error.strerror}); copy the model with the files "
            "themselves"
        ) from None
