"""Pages in a real browser, Chromium with its driver.

Set ``PEPPER_SCREENSHOTS`` to a folder to keep a picture of each page.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Picture = Callable[[str], None]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser; tests that want it are reported as skipped without one."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no Chromium with its driver is installed: pages are not looked at in a browser")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1500,1100"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.set_page_load_timeout(60)
    yield chrome
    chrome.quit()


@pytest.fixture
def picture(browser: Any) -> Picture:
    """Keeps a picture of what the browser shows, where that is asked for."""

    def take(name: str) -> None:
        folder = os.environ.get("PEPPER_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            browser.save_screenshot(f"{folder}/{name}.png")

    return take
