"""A report in a real browser: what it shows, and what stands in its images."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from cvsct.core.volume import CTVolume
from cvsct.evaluation.report.viewer import WINDOWS
from tests.evaluation.test_report import NEAR, SHARP, SOFT

SIZE_PX = 128
SIDES: dict[str, CTVolume] = {"source": SHARP, "harmonized": NEAR, "target": SOFT}
LABELS = {"source": "input", "harmonized": "harmonized", "target": "target"}

PIXELS = """
const canvas = document.querySelector('#viewer canvas');
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
return [canvas.width, canvas.height, Array.from(data)];
"""


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
