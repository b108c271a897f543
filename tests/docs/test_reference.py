"""Generated pages are up to date, complete, and found from the site's navigation."""

from __future__ import annotations

import re
from pathlib import Path

import cvsct
from scripts import cli_reference, site_pictures
from tests.support.pages import ROOT

DOCS = ROOT / "docs"


def test_the_options_of_each_command_are_up_to_date() -> None:
    assert cli_reference.PAGE.read_text(encoding="utf-8") == cli_reference.page(), (
        "run python scripts/cli_reference.py"
    )


def test_the_options_are_those_of_the_commands() -> None:
    found = dict(cli_reference.commands())
    assert set(cli_reference.ORDER) <= found.keys()
    (reverse,) = (o for o in cli_reference.options(found["harmonize"]) if "--reverse" in o.names)
    assert (reverse.names, reverse.value, reverse.told_default) == (["--reverse"], "", "")
    rois = next(o for o in cli_reference.options(found["evaluate"]) if "--rois" in o.names)
    assert (rois.value, rois.told_default) == ("integer, at least 3", "24")
    assert "--repeat" not in {n for o in cli_reference.options(found["evaluate"]) for n in o.names}


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "python-api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: cvsct\.(\w+)$", page, re.MULTILINE)) == sorted(cvsct.__all__)


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r": ([\w/-]+\.md)$", navigation, re.MULTILINE)
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted([*pages, "notebook/README.md"])


def test_the_site_asks_no_other_server() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in settings
    assert "- offline" in settings
    assert "assets/iframe-worker.js" in settings, "without it the theme fetches one for the search"
    assert (DOCS / "assets" / "iframe-worker.js").is_file()
    assert "http" not in settings


def test_pictures_are_few_and_small() -> None:
    pictures = [p for p in DOCS.rglob("*") if p.suffix in (".png", ".webp", ".jpg", ".svg")]
    gallery = [p for p in pictures if "reference" not in p.parts]
    assert sum(picture.stat().st_size for picture in gallery) < 1.5e6


def test_pictures_that_need_no_scans_are_drawn(tmp_path: Path) -> None:
    site_pictures.gains_picture(tmp_path)
    site_pictures.concordance_picture(tmp_path)
    for name in ("gains", "concordance"):
        assert (tmp_path / f"{name}.webp").stat().st_size > 5000
