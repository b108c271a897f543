"""Names of files and folders that are valid on Linux, macOS and Windows, from any text."""

from __future__ import annotations

import re

MAX_NAME = 100
"""Longest name in characters: Windows allows 260 for a whole path."""
MAX_BYTES = 200
"""Longest name in bytes: most file systems allow 255, and suffixes are added to it."""

_FORBIDDEN = set('<>:"/\\|?*')
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)", re.IGNORECASE
)
"""Names of Windows devices, which are reserved with any suffix."""


def portable_name(text: str) -> str:
    r"""Turn text into a file or folder name that is valid on every system.

    A valid name is returned unchanged. These become `_`: `<>:"/\|?*`, characters that cannot be
    printed, spaces at the ends, dots at the end. A name that is too long is cut, and the name of
    a Windows device gets a `_` before it. Different texts can give one name, and Windows and macOS
    ignore case: compare names by `casefold`.

    Example:
        >>> portable_name("thorax 1:5"), portable_name("NUL.x"), portable_name("Br40 v.")
        ('thorax 1_5', '_NUL.x', 'Br40 v_')
    """
    name = "".join("_" if char in _FORBIDDEN or not char.isprintable() else char for char in text)
    name = f"_{name}" if _RESERVED.match(name) else name
    name = name[:MAX_NAME].encode()[:MAX_BYTES].decode(errors="ignore")
    start, end = len(name) - len(name.lstrip(" ")), len(name.rstrip(" ."))
    return "_" * start + name[start:end] + "_" * (len(name) - max(start, end))
