"""Printing of the report: which browser, and what happens where it fails."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import cvsct
from cvsct.core.errors import BrowserError, UsageError
from cvsct.evaluation.report import pdf
from tests.conftest import make_volume
from tests.evaluation.test_report import NEAR, SOFT
from tests.support.commands import Run

PAGE = """<!doctype html><title>t</title><style>@page { size: A4; @bottom-right {
content: "Page " counter(page) " of " counter(pages); } } p { break-after: page; }</style>
<p>one</p><p>two</p>three"""


def program(folder: Path, body: str) -> Path:
    """An executable that stands in for a browser."""
    path = folder / "chromium"
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    return path


def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(pdf, "_usual_places", lambda: iter(()))


def test_a_missing_browser_is_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run
) -> None:
    no_browser(monkeypatch)
    volume = make_volume(NEAR.hu[:1])
    with pytest.raises(BrowserError, match="no Chromium, Chrome or Edge"):
        cvsct.evaluate(volume, volume, pdf=True, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    arguments = ("--harmonized", tmp_path, "--target", tmp_path, "--out", tmp_path / "out")
    code, _, printed = run("evaluate", *arguments, "--pdf", "--dry-run")
    assert code == 1
    assert "--pdf: no Chromium" in printed
    with pytest.raises(UsageError, match="give `out` too"):
        cvsct.evaluate(volume, volume, pdf=True)


def test_browsers_are_found_on_path_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    browser = program(tmp_path, "")
    no_browser(monkeypatch)
    monkeypatch.setattr(pdf, "_usual_places", lambda: iter((tmp_path / "none", browser)))
    assert pdf.find_browser() == browser
    monkeypatch.setattr(shutil, "which", {"msedge": "/usr/bin/msedge"}.get)
    assert pdf.find_browser() == Path("/usr/bin/msedge")


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit(7)", "exit code 7"),
        ("", "it wrote no PDF"),
        ("import time; time.sleep(60)", "it did not end within 1 s"),
    ],
)
def test_a_browser_that_fails_says_so_and_leaves_no_pdf(
    tmp_path: Path, body: str, reason: str
) -> None:
    page = tmp_path / "report.html"
    page.write_text("report")
    browser = program(tmp_path, body)
    with pytest.raises(BrowserError, match=reason):
        pdf.write_pdf(page, tmp_path / "report.pdf", browser, time_limit_s=1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chromium", "report.html"]


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_a_failure_leaves_the_other_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    browser = program(tmp_path, "raise SystemExit(1)")
    monkeypatch.setattr(shutil, "which", lambda name: str(browser))
    with pytest.raises(BrowserError, match="all other files are written"):
        cvsct.evaluate(NEAR, SOFT, rois=3, workers=1, pdf=True, cache=False, out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", "metrics.json", "features.csv", "manifest.json",
    }  # fmt: skip


def test_a_page_is_printed(tmp_path: Path) -> None:
    try:
        browser = pdf.find_browser()
    except BrowserError:
        pytest.skip("no browser is installed")
    (tmp_path / "page.html").write_text(PAGE)
    pdf.write_pdf(tmp_path / "page.html", tmp_path / "page.pdf", browser)
    content = (tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") == 3
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "page.pdf"}
