"""Names of files and folders that every system can hold, from text of any origin."""

from __future__ import annotations

import re

MAX_NAME = 100
"""Characters: Windows counts 260 for a whole path."""
MAX_BYTES = 200
"""Most file systems hold 255 in a name, and suffixes are added to it."""

_FORBIDDEN = set('<>:"/\\|?*')
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)", re.IGNORECASE
)
"""Devices of Windows, whatever suffix follows them."""


def portable_name(text: str) -> str:
    r"""The text as a name for a file or folder; unchanged where every system can hold it.

    What some system forbids becomes `_`: `<>:"/\|?*`, what cannot be printed, spaces at the
    ends, dots at the end; what is too long is cut. A device's name gets a `_` before it. Several
    texts may become one name, and Windows and macOS tell no case apart: compare names by
    `casefold`.

    Example:
        >>> portable_name("thorax 1:5"), portable_name("NUL.x"), portable_name("Br40 v.")
        ('thorax 1_5', '_NUL.x', 'Br40 v_')
    """
    name = "".join("_" if char in _FORBIDDEN or not char.isprintable() else char for char in text)
    name = f"_{name}" if _RESERVED.match(name) else name
    name = name[:MAX_NAME].encode()[:MAX_BYTES].decode(errors="ignore")
    start, end = len(name) - len(name.lstrip(" ")), len(name.rstrip(" ."))
    return "_" * start + name[start:end] + "_" * (len(name) - max(start, end))
