"""One report for all tests that open it in a browser.

Debian's chromium and its driver (`apt-get install chromium-driver`); skipped where they are absent.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cvsct.evaluation.guards import FlaggedSlice, GuardRecord
    from cvsct.evaluation.identity import identity_of
    from cvsct.evaluation.report.write import EvaluationSettings, evaluate, write_report
    from tests.support.report_page import SIDES
    from tests.support.scorecards import with_every_status

    folder = tmp_path_factory.mktemp("report")
    settings = EvaluationSettings(rois=8, roi_px=16, bootstrap=50, spectrum_px=32, examples=2)
    scans = {side: [volume] for side, volume in SIDES.items()}
    flagged = GuardRecord("1", "in_domain", 0.9, (), 3, (FlaggedSlice(2, 5.0, "noise_db 8"),))
    evaluation = replace(
        evaluate(scans["harmonized"], scans["target"], scans["source"], settings),
        guards=(flagged,),
        identity=identity_of(scans, {}, {}, "cvsct evaluate --pdf", 0.0, b"0123456789abcdef"),
    )
    write_report(with_every_status(evaluation), folder)
    return folder / "report.html"


@pytest.fixture(scope="session")
def browser(report_page: Path) -> Iterator[Any]:
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
        chrome.get(report_page.as_uri())
        yield chrome
