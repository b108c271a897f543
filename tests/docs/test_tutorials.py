"""Tutorials run as their pages show them, and the pages are made of the scripts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cvsct.methods import registry
from scripts import tutorial_pages
from scripts.tutorial_pages import FOLDER, NAMES, cells, inside, page, page_of, run, stored


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_up_to_date(name: str) -> None:
    assert page_of(name).read_text(encoding="utf-8") == page(name, stored()[name]), (
        "run python scripts/tutorial_pages.py --run"
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_has_its_stored_output(name: str) -> None:
    assert len(stored()[name]) == sum(cell.is_code for cell in cells(name))


def test_a_script_is_cut_where_text_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tutorial_pages, "FOLDER", tmp_path)
    (tmp_path / "a_b.py").write_text("# # T\n#\n# x\n\nx = 1\n\n\nprint(x)\n\n# end\n")
    assert [(c.is_code, c.text) for c in cells("a-b")] == [
        (False, "# T\n\nx"), (True, "x = 1\n\n\nprint(x)"), (False, "end"),
    ]  # fmt: skip
    outputs, names = run("a-b", tmp_path)
    assert outputs == ["1"]
    assert names["x"] == 1
    assert "```text\n1\n```" in page("a-b", outputs)


def test_two_scanners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outputs, names = run("two-scanners", tmp_path)
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    assert len(list((tmp_path / "harmonized").rglob("*.dcm"))) == metrics["n_slices"] == 3
    before, after = map(float, re.findall(r"concordance (\S+) -> (\S+),", outputs[-1])[0])
    assert after > before + 0.2, "the page says that concordance rose"
    assert "Fail" in outputs[-1], "the page says that the scorecard says no"
    assert names["model"].method == "spectrum"  # type: ignore[attr-defined]


def test_five_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outputs, _ = run("five-sites", tmp_path)
    shares = [int(share) for share in re.findall(r"(-?\d+)% of the variance, 15", outputs[-2])]
    assert shares[1] < shares[0] - 20, "the page shows that the share falls by about half"
    assert (tmp_path / "tutorial-five-sites.webp").stat().st_size > 5000


def test_own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "METHODS", registry.METHODS.copy())
    outputs, names = run("own-method", tmp_path)
    told = re.findall(r"(\w+): concordance (\S+) -> (\S+),", outputs[-1])
    assert [method for method, _, _ in told] == ["blur", "spectrum"]
    assert all(float(after) > float(before) + 0.2 for _, before, after in told)
    assert names["METHODS"]["blur"].reversible is False  # type: ignore[index]


def test_the_own_method_is_as_short_as_it_says() -> None:
    method = next(cell.text for cell in cells("own-method") if cell.is_code)
    lines = [line for line in method.splitlines() if line.strip() and "import" not in line]
    assert len(lines) <= 40


def test_scans_of_the_tutorials_differ_as_their_scanners_do(tmp_path: Path) -> None:
    with inside(tmp_path):
        import tiny_scans

        sharp = tiny_scans.TinyScanner("A", "B", "C", 0.2, 55)
        soft = tiny_scans.TinyScanner("A", "B", "D", 0.8, 24)
        assert (tiny_scans.scan_hu(sharp, 1) == tiny_scans.scan_hu(sharp, 1)).all()
        difference = tiny_scans.scan_hu(soft, 1) - tiny_scans.scan_hu(soft, 1, repeat=1)
        assert difference[:, 90:100, 90:100].std() == pytest.approx(24 * 2**0.5, rel=0.15)
    assert FOLDER.is_dir()
