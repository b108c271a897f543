"""Pages of the manual as tests read them: fenced blocks with their marks, and commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANUAL = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>(?:not run|run by|run in)\b.*?) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHELL, PYTHON = ("bash", "sh", "console"), ("python",)


def named(page: Path) -> str:
    """Path of a page within the repository."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language, text, and what its mark says of running it."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def is_code(self) -> bool:
        """Whether somebody would run it."""
        return self.language in (*SHELL, *PYTHON)

    @property
    def sandbox(self) -> str:
        """Name of the folder that it runs in; empty where it is not run as it stands."""
        return self.mark.removeprefix("run in:").strip() if self.mark.startswith("run in:") else ""

    @property
    def commands(self) -> list[str]:
        """Lines that call `cvsct`, without comments and what follows `&&`."""
        joined = self.text.replace("\\\n", " ")
        parts = [part.strip() for line in joined.splitlines() for part in line.split("&&")]
        return [part for part in parts if part.startswith("cvsct ")]


def blocks_of(page: Path) -> Iterator[Block]:
    """Fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(named(page), line, found["language"], found["text"], found["mark"] or "")


def words(command: str) -> list[str]:
    """Words of a command after `cvsct`, without a comment at its end."""
    return shlex.split(command, comments=True)[1:]
