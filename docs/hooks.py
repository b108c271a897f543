"""Hooks of mkdocs: the notebook beside the manual, and links to files that are no pages.

The pages in `docs/` and `notebook/` link to each other, and to source files, by relative paths, as
they lie in the repository. In the site the notebook stands under `notebook/`, apart from the
manual and out of the search. A link to any other file of the repository becomes its path in
plain text; where the variable `CVSCT_REPOSITORY_URL` is set, a link to that file there.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"^<!-- (?:not run|run by|run in)\b.*?-->\n", re.MULTILINE | re.DOTALL)
TEXT_THEN_LIST = re.compile(r"^((?![\s|#>]|- |\d+\. ).+)\n(?=(?:- |1\. ))", re.MULTILINE)
"""A list right after a line of text, which is a list on GitHub and none to mkdocs."""
SHOWN = {".md", ".png", ".webp", ".svg", ".json"}
NOTICE = (
    '<p class="notebook">A page of the laboratory notebook: it tells the state of the day it was '
    "written, with what failed. The manual is in the other sections.</p>\n\n"
)


def on_files(files: Any, config: Any) -> Any:
    """Add the notebook's pages and pictures, where they lie, as files under `notebook/`."""
    for path in sorted((ROOT / "notebook").rglob("*")):
        if path.suffix in SHOWN and path.is_file():
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links by the site's places; the notebook's pages get a notice and stay out of the search."""
    at = page.file.src_uri
    notebook = at.startswith("notebook/")
    place = at if notebook else f"docs/{at}"

    def rewrite(found: re.Match[str]) -> str:
        picture, text, link = found.groups()
        if re.match(r"[a-z]+:", link) or link.startswith("#"):
            return found[0]
        path, _, anchor = link.partition("#")
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
        uri = wanted.removeprefix("docs/")
        if wanted.startswith(("docs/", "notebook/")) and files.get_file_from_path(uri):
            to = posixpath.relpath(uri, posixpath.dirname(at) or ".")
            return f"{picture}[{text}]({to}{'#' if anchor else ''}{anchor})"
        if not (ROOT / wanted).exists():
            return found[0]  # strict mode tells it
        address = os.environ.get("CVSCT_REPOSITORY_URL", "").rstrip("/")
        if address:
            return f"[{text}]({address}/blob/main/{wanted})"
        return f"`{wanted}`" if text.strip("`") in wanted else f"{text} (`{wanted}`)"

    def prose(part: str) -> str:
        return LINK.sub(rewrite, TEXT_THEN_LIST.sub(r"\1\n\n", part))

    parts = FENCE.split(COMMENT.sub("", markdown))
    text = "".join(part if part.startswith("```") else prose(part) for part in parts)
    if "/" not in at:  # a section of its own: nothing to show beside it
        page.meta.setdefault("hide", ["navigation"])
    if notebook:
        page.meta.setdefault("search", {"exclude": True})
        head, line, rest = text.partition("\n")
        text = f"{head}{line}\n{NOTICE}{rest}"
    return text
