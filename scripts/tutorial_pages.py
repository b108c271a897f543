"""Pages of docs/tutorials, made of scripts: comments become text, code stays code, with its output.

    python scripts/tutorial_pages.py            # writes the pages from scripts and stored output
    python scripts/tutorial_pages.py --run      # runs the scripts first, and stores what they print
    python scripts/tutorial_pages.py --try five-sites --in folder    # runs one, in a folder

A script of docs/tutorials is the one source: tests/docs/test_tutorials.py runs its cells and
compares the page with it. Lines that begin with `#` are text, all others code; a cell of code ends
where text begins. Pictures that a script saves as `tutorial-*.webp` go beside its page.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
OUTPUTS = FOLDER / "outputs.json"
"""What each cell of code printed when the pages were made."""
NAMES = ("two-scanners", "five-sites", "own-method")
MARK = "<!-- run by tests/docs/test_tutorials.py -->"


@dataclass(frozen=True)
class Cell:
    """Text or code of a tutorial, as it stands in its script."""

    is_code: bool
    text: str


def script(name: str) -> Path:
    return FOLDER / f"{name.replace('-', '_')}.py"


def cells(name: str) -> list[Cell]:
    """Cells of a tutorial in their order."""
    lines = script(name).read_text(encoding="utf-8").splitlines()
    kinds: list[tuple[bool, str]] = []
    is_code = False
    for line in lines:
        if line:
            is_code = not line.startswith("#")
        kinds.append((is_code, line))
    found = []
    for code, group in groupby(kinds, key=lambda pair: pair[0]):
        block = [line for _, line in group]
        text = "\n".join(block if code else [line[2:] for line in block])
        found.append(Cell(code, text.strip("\n")))
    return found


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder, with the tutorials' helpers at hand."""
    before = Path.cwd()
    sys.path.insert(0, str(FOLDER))
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(FOLDER))


def run(name: str, folder: Path) -> tuple[list[str], dict[str, object]]:
    """Run a tutorial's cells in a folder: what each cell of code printed, and its names."""
    names: dict[str, object] = {"__name__": "tutorial"}
    outputs = []
    with inside(folder):
        for number, cell in enumerate(cells(name)):
            if cell.is_code:
                printed = io.StringIO()
                code = compile(cell.text, f"{script(name)}, cell {number}", "exec")
                with contextlib.redirect_stdout(printed):
                    exec(code, names)
                outputs.append(printed.getvalue().rstrip())
    return outputs, names


def page(name: str, outputs: list[str]) -> str:
    """The page of a tutorial."""
    printed = iter(outputs)
    parts = []
    for cell in cells(name):
        if not cell.is_code:
            parts.append(cell.text)
            continue
        parts.append(f"{MARK}\n```python\n{cell.text}\n```")
        if said := next(printed, ""):
            parts.append(f"```text\n{said}\n```")
    return "\n\n".join(parts) + "\n"


def page_of(name: str) -> Path:
    return FOLDER / f"{name}.md"


def stored() -> dict[str, list[str]]:
    """What the cells printed, by tutorial."""
    found: dict[str, list[str]] = json.loads(OUTPUTS.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Run and write, or try one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--try", dest="tried", choices=NAMES)
    parser.add_argument("--in", dest="folder", type=Path, default=Path("tutorial"))
    arguments = parser.parse_args()
    if arguments.tried:
        arguments.folder.mkdir()
        print("\n".join(filter(None, run(arguments.tried, arguments.folder)[0])))
        return
    outputs = stored() if OUTPUTS.exists() else {}
    if arguments.run:
        for name in NAMES:
            with tempfile.TemporaryDirectory() as folder:
                begun = time.process_time()
                outputs[name], _ = run(name, Path(folder))
                for picture in Path(folder).glob("tutorial-*.webp"):
                    shutil.copyfile(picture, FOLDER / picture.name)
                print(f"{name}: {time.process_time() - begun:.0f} s in this process", flush=True)
        text = json.dumps(outputs, indent=1, ensure_ascii=False)
        OUTPUTS.write_text(text + "\n", encoding="utf-8", newline="\n")
    for name in NAMES:
        page_of(name).write_text(page(name, outputs[name]), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
