"""The report in a real browser: its width, its colors, its landmarks and what is printed."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.report_page import emulate, wait_for

CONTRASTS = """
const light = (color) => {
  const parts = color.match(/[\\d.]+/g).map(Number);
  const linear = parts.slice(0, 3).map(v => v / 255).map(
    v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const color = getComputedStyle(node).backgroundColor;
    if (!/rgba\\(.*, 0\\)/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
};
const shown = [...document.querySelectorAll("p, td, th, dd, dt, a, h2, h3, li, caption, button")];
return shown.filter(node => node.offsetParent).map(node => {
  const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
  return [(pair[0] + 0.05) / (pair[1] + 0.05), node.tagName, node.textContent.slice(0, 40)];
}).filter(each => each[0] < 4.5);
"""


def test_the_page_loads_without_error_or_network(browser: Any) -> None:
    wait_for(browser, "left input, right harmonized")
    assert browser.get_log("browser") == []
    names = "return performance.getEntriesByType('resource').map(each => each.name)"
    assert [name for name in browser.execute_script(names) if not name.startswith("data:")] == []


def test_it_prints_its_figures_and_no_controls(browser: Any) -> None:
    pdf = base64.b64decode(browser.print_page())
    assert pdf.startswith(b"%PDF")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = browser.execute_script(
        "return getComputedStyle(document.querySelector('#viewer')).display"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == "none"


@pytest.mark.parametrize("width", [390, 768, 1920])
def test_nothing_scrolls_sideways_but_tables(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    root = "document.documentElement"
    seen, whole = browser.execute_script(f"return [{root}.clientWidth, {root}.scrollWidth]")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert whole <= seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_light_and_dark(browser: Any, scheme: str) -> None:
    emulate(browser, prefers_color_scheme=scheme)
    color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    faint = browser.execute_script(CONTRASTS)
    emulate(browser, "print", prefers_color_scheme=scheme)
    printed = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    emulate(browser)
    assert (sum(map(int, re.findall(r"\d+", color))) < 150) == (scheme == "dark")
    assert faint == [], "WCAG AA asks for 4.5"
    assert printed == "rgb(255, 255, 255)", "paper is white"


def test_landmarks_have_names(browser: Any) -> None:
    for selector in ("header", "main", "nav[aria-label]", "footer"):
        assert len(browser.find_elements("css selector", selector)) == 1
    unnamed = "return [...document.querySelectorAll('section')].filter("
    unnamed += "s => !document.getElementById(s.getAttribute('aria-labelledby'))).length"
    assert browser.execute_script(unnamed) == 0


def test_printed_pages_have_numbers_and_no_heading_ends_one(browser: Any, tmp_path: Path) -> None:
    pdf = base64.b64decode(browser.print_page())
    pages = len(re.findall(rb"/Type */Page\b(?!s)", pdf))
    assert pages >= 1
    rules = "return [...document.styleSheets[0].cssRules].map(rule => rule.cssText).join(' ')"
    assert "counter(page)" in browser.execute_script(rules)
    reader = shutil.which("pdftotext")
    if reader is None:
        return
    (tmp_path / "report.pdf").write_bytes(pdf)
    subprocess.run([reader, "-layout", tmp_path / "report.pdf", tmp_path / "text"], check=True)
    texts = (tmp_path / "text").read_text(encoding="utf-8").split("\f")[:pages]
    headings = {node.text for node in browser.find_elements("css selector", "h1, h2, h3")}
    for number, text in enumerate(texts, 1):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        assert f"Page {number} of {pages}" in lines[-1]
        assert lines[-2] not in headings
    assert "Signature" in texts[0]
