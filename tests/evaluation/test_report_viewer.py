"""The report's viewer in a real browser: what it paints and tells, by mouse and by keyboard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvsct.evaluation.report.figures import RESIDUAL_HU
from tests.evaluation.test_report import NEAR, SHARP, SOFT
from tests.support.report_page import (
    SIZE_PX,
    canvas_of,
    choose,
    emulate,
    expected_values,
    first_shown,
    gray,
    painted,
    values_read,
    wait_for,
)


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


def test_no_error_reaches_the_console(browser: Any) -> None:
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []


def test_negative_and_large_hu_survive_the_trip() -> None:
    from cvsct.evaluation.report.viewer import OFFSET_HU, to_rgb

    hu = np.array([[-2048.0, -1024.4, -0.5], [0.0, 3071.0, 32_767.0]])
    code = to_rgb(hu).astype(int)
    assert np.array_equal(code[..., 0] * 256 + code[..., 1] - OFFSET_HU, np.rint(hu))
