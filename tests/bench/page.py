"""How long the page with the evidence takes to open in a browser: `invoke bench --only page`."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import SpecInvalid
from tests.bench.rows import Row
from tests.report.evidence_examples import FULL
from tests.report.test_page_in_browser import CHROMIUM, DRIVER, HUGE, NEEDS, show, start_browser

RUNS = 7
OPENED = "return performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
"""Seconds from the beginning of the navigation until all of the page is there."""


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Return the row of a huge report, beside one of a usual size. Raises SpecInvalid without Chromium."""
    if not CHROMIUM or not DRIVER:
        raise SpecInvalid("there is no Chromium to measure with", hint=NEEDS)
    browser = start_browser()
    huge: list[float] = []
    usual: list[float] = []
    try:
        with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
            for _ in range(RUNS):
                for evidence, seconds in ((HUGE, huge), (FULL, usual)):
                    show(browser, Path(folder), evidence)
                    seconds.append(float(browser.execute_script(OPENED)))
        versions = f"Chromium {browser.capabilities['browserVersion']}"
    finally:
        browser.quit()
    title = "the page of 500 controls at 3 layers and 5,000 findings opens"
    return [Row(title, "s", statistics.median(huge), "a usual page", statistics.median(usual), "1 s", RUNS, versions)]
