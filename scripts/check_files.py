"""Files fit to be committed: text ends with one line break, nothing is large, nothing is DICOM.

    python scripts/check_files.py FILE...

Prints a line for each file that is not, and ends with 1 if there is one. Bundled models may be
large; their folder is named below.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

MAX_BYTES = 1_200_000
MAY_BE_LARGE = ("src/cvsct/bundled/",)
IMAGES = (".dcm", ".dicom", ".ima", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
_PREAMBLE = 132
_GROUPS = (b"\x02\x00", b"\x08\x00")
_REPRESENTATIONS = {b"UI", b"UL", b"CS", b"OB", b"SH", b"LO", b"DA", b"TM"}


def faults(path: Path) -> list[str]:
    """What keeps a file from being committed."""
    content = path.read_bytes()
    found = []
    if is_image(path.name, content):
        found.append("an image of a patient, perhaps; scans are never committed")
    if len(content) > MAX_BYTES and not path.as_posix().startswith(MAY_BE_LARGE):
        found.append(f"{len(content)} bytes, more than {MAX_BYTES}")
    if is_text(content) and content and (content[-1:] != b"\n" or content[-2:] == b"\n\n"):
        found.append("does not end with one line break")
    return found


def is_image(name: str, content: bytes) -> bool:
    """Whether it is a scan by its name or its content, with or without DICOM's preamble."""
    if name.lower().endswith(IMAGES):
        return True
    if content[:2] == b"\x1f\x8b":
        try:
            content = zlib.decompressobj(wbits=31).decompress(content, _PREAMBLE + 400)
        except zlib.error:
            return False
    headless = content[:2] in _GROUPS and content[4:6] in _REPRESENTATIONS
    nifti = content[344:348] in (b"n+1\0", b"ni1\0")
    return content[128:_PREAMBLE] == b"DICM" or headless or nifti


def is_text(content: bytes) -> bool:
    """Whether it is UTF-8 without NUL."""
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def main() -> None:
    """Check the files that are named."""
    wrong = [f"{name}: {fault}" for name in sys.argv[1:] for fault in faults(Path(name))]
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
