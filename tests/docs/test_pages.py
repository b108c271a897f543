"""Links between pages lead somewhere, and the commands that pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "notebook").rglob("*.md")]
)
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "notebook").rglob("*.py")])
LINK = re.compile(r"\]\(([^()\s]+)\)")
COMMAND = re.compile(r"(?:python|bash) ((?:scripts|notebook)/[\w/.-]+\.(?:py|sh))")
MENTION = re.compile(r"(?<![\w/.])((?:notebook/)?scripts/\w+\.(?:py|sh))")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HISTORY = re.compile(
    r"\bissue \d|\bdecision \d|this issue|first study|first design|the design's|prototype",
    re.IGNORECASE,
)
TOLD_APART = re.compile(r"\]\((?!https?:)[^)\s]*decisions/")


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub, and the site likewise, gives a page's headings and public names."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return set(re.findall(r"^::: (\S+)$", text, re.MULTILINE)) | {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
    }


def broken_links(page: Path) -> list[str]:
    """Links to files that are not there, or to headings that their pages do not have."""
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in _anchors(place)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_links_lead_somewhere(page: Path) -> None:
    source = re.compile(r"^(\.\./)*src/")  # where a source file lies is not a page's promise
    assert not [link for link in broken_links(page) if not source.match(link)]


@pytest.mark.parametrize("page", [*PAGES, *SCRIPTS, ROOT / "Makefile"], ids=_named)
def test_scripts_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if _named(page) == "CHANGELOG.md":  # tells of what was
        return
    named = {*COMMAND.findall(text), *MENTION.findall(text)}
    assert not sorted(name for name in named if not (ROOT / name).is_file())


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=_named)
def test_the_manual_tells_no_history(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not HISTORY.findall(text)
    assert not TOLD_APART.findall(text)


def test_every_picture_of_docs_and_notebook_is_shown_on_a_page() -> None:
    shown = {
        (page.parent / link).resolve() for page in PAGES for link in LINK.findall(page.read_text())
    }
    files = [*(ROOT / "docs").rglob("*"), *(ROOT / "notebook").rglob("*")]
    pictures = [file for file in files if file.suffix in (".png", ".webp", ".svg")]
    assert pictures
    assert not sorted(_named(picture) for picture in pictures if picture.resolve() not in shown)


def test_every_study_script_serves_a_page() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    code = "\n".join(script.read_text() for script in SCRIPTS)
    for script in (ROOT / "notebook" / "scripts").glob("*.py"):
        imported = re.search(rf"^(from|import) {script.stem}\b", code, re.MULTILINE)
        assert script.name in text or imported, f"{script.name}: no page names it"


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b\n[x](nowhere.md) [y](page.md#a-b) [z](#no-such) [w](https://e.org/x)\n")
    assert broken_links(page) == ["nowhere.md", "#no-such"]
