"""Size and depth of the code: files, lines, words of the manual, the longest chain of imports.

`python notebook/scripts/house_figures.py [CHECKOUT]` prints a line of JSON. A chain counts each
module once, imports inside functions included.
"""

from __future__ import annotations

import ast
import functools
import json
import sys
from pathlib import Path


def modules(package: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a module imports, but for type checking alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found & known.keys() - {"cvsct"}


def longest_chain(start: str, known: dict[str, Path]) -> list[str]:
    """The longest way down from a module that meets none twice."""
    edges = {name: imports(path, known) for name, path in known.items()}

    @functools.cache
    def chain(name: str) -> tuple[str, ...]:
        below = [chain(each) for each in sorted(edges[name] - {name}) if name not in edges[each]]
        return (name, *max(below, key=len, default=()))

    return list(chain(start))


def main(root: Path) -> None:
    """Print the figures of a checkout."""
    package = root / "src" / "cvsct"
    known = modules(package)
    folders = {path.parent for path in known.values()}
    pages = list((root / "docs").rglob("*.md"))
    chain = longest_chain("cvsct.cli.harmonize", known)
    figures = {
        "files": len(known),
        "lines": sum(len(path.read_text("utf-8").splitlines()) for path in known.values()),
        "folders": len(folders),
        "most_files_in_a_folder": max(len(list(each.glob("*.py"))) for each in folders),
        "words_of_docs": sum(len(page.read_text("utf-8").split()) for page in pages),
        "longest_chain": len(chain),
        "chain": chain,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
