"""Whether a tag may become a release; prints what the changelog tells of it.

    python scripts/check_release.py v0.2.0 > notes.md

The tag, `cvsct.__version__` and CITATION.cff must name one version, and the changelog must begin
with its section, dated. Ends with 1 and a line for each that does not.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
CITED = re.compile(r"^version: (\S+)$", re.MULTILINE)
DATED = re.compile(r"^date-released: \"?(\d{4}-\d\d-\d\d)\"?$", re.MULTILINE)
SECTION = re.compile(r"^## (\S+) \(([^)]+)\)$\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def faults(tag: str, code: str, citation: str, changelog: str) -> list[str]:
    """What keeps a tag from being a release, a sentence each."""
    if not re.fullmatch(r"v\d+\.\d+\.\d+(rc\d+)?", tag):
        return [f"{tag} is not a tag of a release, such as v0.2.0 or v0.2.0rc1"]
    wanted, found = tag[1:], []
    for pattern, text, where in (
        (VERSION, code, "src/cvsct/__init__.py"),
        (CITED, citation, "CITATION.cff"),
    ):
        told = pattern.search(text)
        if told is None or told[1] != wanted:
            found.append(f"{where} names {told[1] if told else 'no version'}, the tag {wanted}")
    section = SECTION.search(changelog)
    if section is None or section[1] != wanted:
        first = section[1] if section else "nothing"
        return [*found, f"CHANGELOG.md begins with {first}, the tag is {wanted}"]
    released = DATED.search(citation)
    try:
        datetime.date.fromisoformat(section[2])
    except ValueError:
        found.append(f"CHANGELOG.md says ({section[2]}) of {wanted}, not the date of the release")
    else:
        if released is None or released[1] != section[2]:
            found.append(f"CITATION.cff has no date-released: {section[2]}")
    return found


def main() -> None:
    """Check the tag that is given."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    changelog = read("CHANGELOG.md")
    code, citation = read("src/cvsct/__init__.py"), read("CITATION.cff")
    if found := faults(sys.argv[1], code, citation, changelog):
        sys.exit("\n".join(found))
    section = SECTION.search(changelog)
    print(section[3].strip() if section else "")


if __name__ == "__main__":
    main()
