"""Debian's Chromium as a child process, driven by Selenium: pages as people see them, without a network."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PAGE_TIMEOUT_S = 60
"""For loading a page, and for a script in it."""
ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # tests in containers run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",  # which a container may have too little of
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no name and no address leads anywhere
)


class BrowserError(Exception):
    """Chromium or its driver is missing."""


@contextmanager
def running_browser() -> Iterator[Chrome]:
    """A browser that is offline. Raises BrowserError where Debian's chromium or chromium-driver is not installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise BrowserError("chromium and chromedriver are needed (Debian: chromium, chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        # Both paths given, Selenium looks for nothing and downloads nothing.
        browser = Chrome(options, Service(driver))
        try:
            browser.set_page_load_timeout(PAGE_TIMEOUT_S)
            browser.set_script_timeout(PAGE_TIMEOUT_S)
            browser.set_network_conditions(offline=True, latency=0, throughput=0)
            yield browser
        finally:
            browser.quit()


def show_as(browser: Chrome, width: int, height: int, *, dark: bool = False) -> None:
    """The size of the screen in pixels, a phone's below 500, and the colors that its owner likes."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def screenshot(browser: Chrome, path: Path, *, height: int | None = None) -> None:
    """A PNG of the page, as wide as the screen, down to ``height`` pixels (None = to its end)."""
    width, whole = browser.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollHeight]"
    )
    clip = {"x": 0, "y": 0, "width": width, "height": min(whole, height or whole), "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))


def requested_urls(browser: Chrome) -> list[str]:
    """What pages have asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in _log(browser, "performance")]
    return [it["params"]["request"]["url"] for it in events if it["method"] == "Network.requestWillBeSent"]


def console_messages(browser: Chrome) -> list[str]:
    """Errors and warnings that the console has shown since the last call."""
    return [entry["message"] for entry in _log(browser, "browser")]


def _log(browser: Chrome, kind: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries
