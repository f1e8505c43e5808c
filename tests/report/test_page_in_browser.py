"""The page in a real browser, from a file: nothing in it runs, it fits every screen, and keys alone are enough."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from pipeline.report.evidence import Evidence, Finding, Layer, Result, Status
from pipeline.report.html import render_html
from tests.report.evidence_examples import CLEAN, FULL
from tests.report.hostile import HOSTILE

pytestmark = pytest.mark.end_to_end

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NEEDS = "needs Chromium: apt-get install chromium chromium-driver (ci/packages-peers)"
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
DRAWING_SECONDS = 60
PROVED = "return [...document.querySelectorAll('tr.proved')].filter(row => row.checkVisibility()).length"
HUGE = FULL.model_copy(
    update={
        "results": tuple(
            Result(controls=(f"X{number:03}",), layer=layer, status=Status.PASS, title="a check", source="checks/x.py")
            for number in range(500)
            for layer in (Layer.LIVE, Layer.FRESH_BOOT, Layer.RAW)
        ),
        "findings": tuple(
            Finding(control="R03", layer=Layer.RAW, kind="key", place=f"block {number}", fingerprint=f"{number:012x}")
            for number in range(5000)
        ),
    }
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    if not CHROMIUM or not DRIVER:
        pytest.skip(NEEDS)
    chrome = start_browser()
    yield chrome
    chrome.quit()


def start_browser() -> webdriver.Chrome:
    """Start a Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("--headless=new", "--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def show(browser: webdriver.Chrome, folder: Path, evidence: Evidence, width: int = 1280, scheme: str = "light") -> None:
    """Open a report in a window of a width, in light or dark."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page = folder / "report.html"
    page.write_text(render_html(evidence))
    browser.get(page.as_uri())


def complaints(browser: webdriver.Chrome) -> list[Any]:
    """Return what the browser wrote to its console since it was last asked: refused scripts, missing files."""
    return [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("evidence", [FULL, CLEAN, HOSTILE], ids=["full", "clean", "hostile"])
@pytest.mark.parametrize("width", [320, 1280])
def test_page_fits_the_screen_and_the_browser_has_nothing_to_complain_of(
    browser: webdriver.Chrome, tmp_path: Path, evidence: Evidence, width: int
) -> None:
    complaints(browser)
    show(browser, tmp_path, evidence, width)
    assert browser.execute_script(OVERFLOW) == 0
    assert complaints(browser) == []


def test_hostile_report_runs_nothing(browser: webdriver.Chrome, tmp_path: Path) -> None:
    show(browser, tmp_path, HOSTILE)
    assert browser.title.startswith("Not proved: <script>document.title='owned'</script>")
    assert browser.find_elements(By.CSS_SELECTOR, "script, iframe, img, [onload], [onerror]") == []


def test_policy_refuses_a_script_that_got_in_nevertheless(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Escaping is the first wall; this is the second."""
    page = tmp_path / "report.html"
    page.write_text(render_html(CLEAN).replace("</main>", "<script>document.title='owned'</script></main>"))
    browser.get(page.as_uri())
    assert browser.title.startswith("Proved")
    assert any("Content Security Policy" in message for message in complaints(browser))


def test_keys_alone_lead_to_the_evidence_of_a_control(browser: webdriver.Chrome, tmp_path: Path) -> None:
    show(browser, tmp_path, FULL)
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the evidence"
    assert "outline" in browser.execute_script(
        "return getComputedStyle(document.activeElement).outlineStyle === 'solid' ? 'outline' : ''"
    )
    browser.find_element(By.CSS_SELECTOR, ".matrix a[href='#of-H01']").send_keys(Keys.ENTER)
    opened = browser.find_element(By.ID, "of-H01")
    assert opened.is_displayed()
    assert "no answer" not in opened.text
    assert r"\x1b[31m" in opened.text


def test_what_passes_can_be_left_out(browser: webdriver.Chrome, tmp_path: Path) -> None:
    show(browser, tmp_path, CLEAN)
    assert browser.execute_script(PROVED) == 1
    browser.find_element(By.ID, "problems").send_keys(Keys.SPACE)
    assert browser.execute_script(PROVED) == 0


def test_dark_is_dark_and_light_is_light(browser: webdriver.Chrome, tmp_path: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        show(browser, tmp_path, CLEAN, scheme=scheme)
        ground = "return getComputedStyle(document.body).backgroundColor"
        grounds[scheme] = browser.execute_script(ground)
    assert grounds == {"light": "rgb(248, 246, 241)", "dark": "rgb(20, 19, 15)"}


def test_screen_reader_finds_landmarks_and_tables_with_names(browser: webdriver.Chrome, tmp_path: Path) -> None:
    show(browser, tmp_path, FULL, width=380)
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    shown = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    roles = [role for role, _ in shown]
    assert {"banner", "navigation", "main", "contentinfo", "rowheader", "columnheader"} <= set(roles)
    assert ("heading", "Not proved") in shown
    assert ("table", "Hardened") in shown
    assert ("checkbox", "show only what is no pass") in shown
    assert any(role in ("img", "image") and name.startswith("The stages of the build") for role, name in shown)
    assert all(name for role, name in shown if role in ("region", "link", "image"))


def test_paper_shows_what_the_screen_folds(browser: webdriver.Chrome, tmp_path: Path) -> None:
    show(browser, tmp_path, FULL)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    folded = browser.find_element(By.ID, "of-H04")
    unfolded = "return arguments[0].checkVisibility({contentVisibilityAuto: true})"
    # The browser unfolds it with the next picture that it draws.
    WebDriverWait(browser, DRAWING_SECONDS).until(lambda _: browser.execute_script(unfolded, folded))
    assert not browser.find_element(By.TAG_NAME, "nav").is_displayed()


def test_huge_report_opens_whole(browser: webdriver.Chrome, tmp_path: Path) -> None:
    show(browser, tmp_path, HUGE)
    assert len(browser.find_elements(By.CSS_SELECTOR, "section[aria-labelledby=findings] tbody tr")) == 5000
    assert len(browser.find_elements(By.CSS_SELECTOR, ".matrix tbody tr")) >= 500
