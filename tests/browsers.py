"""A real browser for the tests of pages."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip
SECONDS = 120  # for a busy machine


def available():
    """Whether the browser and its driver are installed."""
    return bool(CHROMIUM and DRIVER)


@contextmanager
def browser(folder):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def show(driver, address, width=1600, scheme="light"):
    """Open an address at a width in CSS pixels, and wait until all charts are drawn."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    driver.get(address)
    WebDriverWait(driver, SECONDS).until(lambda d: d.execute_script("return document.documentElement.dataset.ready"))


def rows(driver):
    script = "return [...document.querySelectorAll('#board tbody tr')].filter(r => !r.hidden).map(r => r.dataset.trial)"
    return driver.execute_script(script)
