"""The report in a real browser: what the viewer paints, by keyboard, and what is printed.

Debian's chromium and its driver (`apt-get install chromium-driver`); skipped where they are absent.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvsct.evaluation.report.figures import RESIDUAL_HU
from cvsct.evaluation.report.viewer import WINDOWS
from cvsct.evaluation.report.write import EvaluationSettings, evaluate, write_report
from tests.evaluation.test_report import NEAR, SHARP, SOFT

FAST = EvaluationSettings(rois=8, roi_px=16, bootstrap=50, spectrum_px=32, examples=2)
SIZE_PX = 128

PIXELS = """
const canvas = document.querySelector('#viewer canvas');
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
return [canvas.width, canvas.height, Array.from(data)];
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(evaluate([NEAR], [SOFT], [SHARP], FAST), folder)
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


def test_negative_and_large_hu_survive_the_trip() -> None:
    from cvsct.evaluation.report.viewer import OFFSET_HU, to_rgb

    hu = np.array([[-2048.0, -1024.4, -0.5], [0.0, 3071.0, 32_767.0]])
    code = to_rgb(hu).astype(int)
    assert np.array_equal(code[..., 0] * 256 + code[..., 1] - OFFSET_HU, np.rint(hu))
