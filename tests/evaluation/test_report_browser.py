"""The report in a real browser: what the viewer paints, by keyboard, and what is printed.

Debian's chromium and its driver (`apt-get install chromium-driver`); skipped where they are absent.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvsct.core.volume import CTVolume
from cvsct.evaluation.guards import FlaggedSlice, GuardRecord
from cvsct.evaluation.identity import identity_of
from cvsct.evaluation.report.figures import RESIDUAL_HU
from cvsct.evaluation.report.viewer import WINDOWS
from cvsct.evaluation.report.write import EvaluationSettings, evaluate, write_report
from tests.evaluation.test_report import NEAR, SHARP, SOFT
from tests.support.scorecards import SCORECARD

FAST = EvaluationSettings(rois=8, roi_px=16, bootstrap=50, spectrum_px=32, examples=2)
SIZE_PX = 128
SIDES: dict[str, CTVolume] = {"source": SHARP, "harmonized": NEAR, "target": SOFT}
LABELS = {"source": "input", "harmonized": "harmonized", "target": "target"}

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

PIXELS = """
const canvas = document.querySelector('#viewer canvas');
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
return [canvas.width, canvas.height, Array.from(data)];
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    flagged = GuardRecord("1", "in_domain", 0.9, (), 3, (FlaggedSlice(2, 5.0, "noise_db 8"),))
    scans = {side: [volume] for side, volume in SIDES.items()}
    evaluation = replace(
        evaluate([NEAR], [SOFT], [SHARP], FAST),
        guards=(flagged,),
        identity=identity_of(scans, {}, {}, "cvsct evaluate --pdf", 0.0, b"0123456789abcdef"),
    )
    write_report(evaluation, folder, SCORECARD)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Any]:
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,1200"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    with webdriver.Chrome(options=options, service=service) as chrome:
        chrome.set_page_load_timeout(60)
        chrome.get(page.as_uri())
        yield chrome


def wait_for(browser: Any, label: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    script = "return document.querySelector('#viewer canvas').getAttribute('aria-label')"
    WebDriverWait(browser, 20).until(lambda it: label in it.execute_script(script))


def painted(browser: Any) -> np.ndarray:
    width, height, data = browser.execute_script(PIXELS)
    return np.array(data, np.uint8).reshape(height, width, 4)


def gray(hu: np.ndarray, window: str = "soft tissue") -> np.ndarray:
    low, high = WINDOWS[window]
    return np.clip(255 * (np.rint(hu) - low) / (high - low), 0, 255)


def choose(browser: Any, name: str, text: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("name", name)).select_by_visible_text(text)


def emulate(browser: Any, media: str = "", **features: str) -> None:
    """Emulate a medium and media features, such as `prefers_color_scheme="dark"`."""
    pairs = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": pairs})


def canvas_of(browser: Any) -> Any:
    """The canvas, scrolled into the middle of the window."""
    canvas = browser.find_element("css selector", "#viewer canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    return canvas


def first_shown(browser: Any) -> int:
    """Number of the slice that is shown: its position over the distance of slices."""
    label = canvas_of(browser).get_attribute("aria-label")
    return round(float(re.findall(r"z = ([\d.]+)", label)[0]) / 5.0)


def values_read(browser: Any) -> tuple[int, int, dict[str, int]]:
    """Row, column and HU of each side in the read-out."""
    text = browser.find_element("css selector", "#viewer output").text
    row, column = (int(re.findall(rf"{word} (\d+)", text)[0]) for word in ("row", "column"))
    return row, column, {k: int(v) for k, v in re.findall(r"(\w+) (-?\d+) HU", text)}


def expected_values(index: int, row: int, column: int) -> dict[str, int]:
    return {
        LABELS[side]: int(np.rint(volume.hu[index, row, column])) for side, volume in SIDES.items()
    }


def test_the_page_loads_without_error_or_network(browser: Any) -> None:
    wait_for(browser, "left input, right harmonized")
    assert browser.get_log("browser") == []
    names = "return performance.getEntriesByType('resource').map(each => each.name)"
    assert [name for name in browser.execute_script(names) if not name.startswith("data:")] == []


def test_the_viewer_paints_hu_through_the_window(browser: Any) -> None:
    wait_for(browser, "left input, right harmonized")
    index = 0 if "z = 0.0" in browser.find_element("name", "slice").text.splitlines()[0] else 1
    image = painted(browser)
    half = SIZE_PX // 2
    assert np.abs(image[:, : half - 1, 0] - gray(SHARP.hu[index])[:, : half - 1]).max() <= 1
    assert np.abs(image[:, half + 1 :, 0] - gray(NEAR.hu[index])[:, half + 1 :]).max() <= 1
    choose(browser, "window", "lung")
    wait_for(browser, "lung window")
    lung = painted(browser)[:, half + 1 :, 0]
    assert np.abs(lung - gray(NEAR.hu[index], "lung")[:, half + 1 :]).max() <= 1
    choose(browser, "window", "soft tissue")


def test_the_divider_moves_by_keyboard_alone(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    divider = browser.find_element("name", "divider")
    body = browser.find_element("tag name", "body")
    for _ in range(30):  # reached by Tab, like everything that can be set
        if browser.switch_to.active_element == divider:
            break
        (browser.switch_to.active_element or body).send_keys(Keys.TAB)
    assert browser.switch_to.active_element == divider
    divider.send_keys(Keys.HOME)
    assert divider.get_attribute("value") == "0"
    wait_for(browser, "input")
    everything_right = painted(browser)
    divider.send_keys(*[Keys.ARROW_RIGHT] * 3)
    assert divider.get_attribute("value") == "3"
    wait_for(browser, "input")
    assert not np.array_equal(painted(browser), everything_right)
    divider.send_keys(Keys.HOME)


def test_a_difference_is_colored_by_its_sign(browser: Any) -> None:
    browser.find_element("name", "divider").send_keys("0")
    choose(browser, "right", "harmonized − target")
    wait_for(browser, "harmonized − target")
    image = painted(browser).astype(int)
    difference = np.rint(NEAR.hu[0]) - np.rint(SOFT.hu[0])
    other = np.rint(NEAR.hu[1]) - np.rint(SOFT.hu[1])
    shown = [np.clip(each / RESIDUAL_HU, -1, 1) for each in (difference, other)]
    red_less_blue = (image[..., 0] - image[..., 2]) / 255
    misfits = [float(np.abs(red_less_blue - each).mean()) for each in shown]
    assert min(misfits) < 0.02, misfits
    choose(browser, "right", "harmonized")


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


def test_hu_are_read_by_mouse_and_by_keyboard(browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    canvas = canvas_of(browser)
    index = first_shown(browser)
    for offset in ((0, 0), (97, -61)):
        ActionChains(browser).move_to_element_with_offset(canvas, *offset).perform()
        row, column, values = values_read(browser)
        assert values == expected_values(index, row, column)
        scale = SIZE_PX / canvas.size["width"]
        middle = SIZE_PX / 2
        assert (column, row) == pytest.approx(
            (middle + offset[0] * scale, middle + offset[1] * scale), abs=1.5
        )
    browser.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    row, column, values = values_read(browser)
    assert (row, column) == (SIZE_PX // 2 + 2, SIZE_PX // 2 + 1)
    assert values == expected_values(index, row, column)
    browser.execute_script("arguments[0].blur()", canvas)


def test_the_wheel_zooms_at_the_pointer_and_a_drag_moves(browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    canvas = canvas_of(browser)
    whole = painted(browser)
    origin = ScrollOrigin.from_element(canvas, 60, 40)
    ActionChains(browser).move_to_element_with_offset(canvas, 60, 40).perform()
    under_pointer = values_read(browser)
    ActionChains(browser).scroll_from_origin(origin, 0, -100).perform()
    wait_for(browser, "1.3 times enlarged")
    assert not np.array_equal(painted(browser), whole)
    ActionChains(browser).move_to_element_with_offset(canvas, 60, 41).perform()
    assert values_read(browser)[:2] == pytest.approx(under_pointer[:2], abs=1)
    before = values_read(browser)[:2]
    ActionChains(browser).click_and_hold().move_by_offset(40, 0).release().perform()
    after = values_read(browser)[:2]
    assert after == pytest.approx(before, abs=1), "the image moves with the pointer"
    browser.find_element("name", "whole").click()
    assert "enlarged" not in canvas.get_attribute("aria-label")
    assert np.array_equal(painted(browser), whole)


@pytest.mark.parametrize("by", ["shift", "right button"])
def test_a_drag_sets_the_window(browser: Any, by: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.keys import Keys

    canvas = canvas_of(browser)
    width, level = (browser.find_element("name", name) for name in ("width", "level"))
    assert (width.get_attribute("value"), level.get_attribute("value")) == ("400", "40")
    if by == "shift":
        chain = ActionChains(browser).key_down(Keys.SHIFT).move_to_element(canvas)
        chain.click_and_hold().move_by_offset(30, -20).release().key_up(Keys.SHIFT).perform()
    else:
        actions = ActionBuilder(browser)
        mouse = actions.pointer_action
        mouse.move_to(canvas).pointer_down(button=2).move_by(30, -20).pointer_up(button=2)
        actions.perform()
    assert (width.get_attribute("value"), level.get_attribute("value")) == ("460", "0")
    wait_for(browser, "own window")
    hu = SHARP.hu[first_shown(browser)]
    shown = np.clip(255 * (np.rint(hu) + 230) / 460, 0, 255)
    choose(browser, "right", "input")  # on both sides of the divider, wherever it stands
    wait_for(browser, "left input, right input")
    apart = np.abs(painted(browser)[..., 0] - shown)[:, 1:-1] > 1
    assert apart.any(axis=0).sum() <= 2, "but for the divider itself"
    choose(browser, "right", "harmonized")
    choose(browser, "window", "soft tissue")
    wait_for(browser, "soft tissue window")


def test_blinking_starts_only_by_hand(browser: Any) -> None:
    canvas = canvas_of(browser)
    assert browser.find_element("name", "blink").get_attribute("aria-pressed") == "false"
    browser.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys("b")
    wait_for(browser, ": input, soft")
    wait_for(browser, ": harmonized, soft")  # by itself, after a moment
    wait_for(browser, ": input, soft")
    canvas.send_keys("b")
    wait_for(browser, "left input, right harmonized")
    emulate(browser, prefers_reduced_motion="reduce")
    blink = browser.find_element("name", "blink")
    for label in (": input, soft", ": harmonized, soft", "left input, right harmonized"):
        blink.click()
        wait_for(browser, label)
        timers = browser.execute_async_script("setTimeout(arguments[0], 700)")
        assert timers is None
        assert label in canvas.get_attribute("aria-label"), "one step for each press"
    emulate(browser)


def test_buttons_jump_to_flagged_and_worst_slices(browser: Any) -> None:
    why = browser.find_element("css selector", "#viewer .why")
    browser.find_element("name", "flagged").click()
    wait_for(browser, "z = 5.0 mm")
    assert "flagged: noise_db 8" in why.text
    browser.find_element("name", "largest").click()
    assert "largest difference from the target: mean " in why.text
    canvas = canvas_of(browser)
    browser.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys("f")
    wait_for(browser, "z = 5.0 mm")
    browser.execute_script("arguments[0].blur()", canvas)


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


def test_no_error_reaches_the_console(browser: Any) -> None:
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []


def test_negative_and_large_hu_survive_the_trip() -> None:
    from cvsct.evaluation.report.viewer import OFFSET_HU, to_rgb

    hu = np.array([[-2048.0, -1024.4, -0.5], [0.0, 3071.0, 32_767.0]])
    code = to_rgb(hu).astype(int)
    assert np.array_equal(code[..., 0] * 256 + code[..., 1] - OFFSET_HU, np.rint(hu))
