"""The live page in a real browser: it updates by itself, and keeps what the reader has chosen."""

from __future__ import annotations

import pytest
from browsers import SECONDS, available, browser, rows, show
from made_up import EVIL, begin, confirm, run_trials, spec_of
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from served import served

from kdsweep.serving import pages
from kdsweep.serving.watch import watch_app

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not available(), reason="needs Debian's packages chromium and chromium-driver"),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture(autouse=True)
def empty_log(driver):
    """Leave the page of the test before, whose server has stopped."""
    driver.get("about:blank")
    driver.get_log("browser")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pages, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(pages, "REST", 0.0)


def until(driver, condition):
    return WebDriverWait(driver, SECONDS).until(lambda _: condition())


def text_of(driver, selector):
    """The text of an element. An update may replace elements between finding and reading one."""
    return driver.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def test_the_page_of_a_running_sweep_updates_by_itself_and_keeps_the_readers_choices(driver, tmp_path):
    spec = spec_of(tmp_path)
    begin(spec, classes=(EVIL, "dog"))
    run_trials(spec, trials=20, error=EVIL)
    with served(watch_app(spec.sweep_dir.root)) as client:
        show(driver, client.endpoint.url)
        script = "const s = document.getElementById('by-method'); s.value = 'dkd'; s.dispatchEvent(new Event('change'))"
        driver.execute_script(script)
        driver.execute_script(
            "document.querySelector('.spec').open = true; window.kept = document.getElementById('chart-learning')"
        )
        driver.execute_script("scrollTo({top: 900, behavior: 'instant'}); document.activeElement.blur()")
        before = rows(driver)
        run_trials(spec, trials=20, error=EVIL)
        confirm(spec)
        until(driver, lambda: "fresh seeds" in text_of(driver, "#answer"))
        until(driver, lambda: len(driver.find_elements(By.CSS_SELECTOR, "#chart-gains .scatterlayer path")) > 0)
        assert len(rows(driver)) > len(before)
        assert driver.execute_script("return document.getElementById('by-method').value") == "dkd"
        assert driver.execute_script("return document.querySelector('.spec').open")
        assert driver.execute_script("return scrollY") == 900
        assert driver.execute_script("return window.kept === document.getElementById('chart-learning')")
        live = text_of(driver, "#live")
        assert live.startswith("Live, updated at ")
        assert driver.get_log("browser") == []
        assert driver.title == "made-up: kdsweep report"
        charts = driver.find_elements(By.CSS_SELECTOR, ".chart")
        assert len(charts) == 9
        for chart in charts:
            assert chart.find_elements(By.CSS_SELECTOR, ".scatterlayer path, .barlayer path"), chart.get_attribute("id")
    until(driver, lambda: "kdsweep watch has stopped" in text_of(driver, "#live"))


def test_a_selection_in_the_parallel_coordinates_outlives_an_update(driver, tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, trials=20)
    with served(watch_app(spec.sweep_dir.root)) as client:
        show(driver, client.endpoint.url)
        box = "{type: 'rect', x0: 0.8, x1: 1.2, y0: 0.9, y1: 1.05}"  # the top of the axis `width`
        select = f"Plotly.relayout(document.getElementById('chart-parallel'), {{selections: [{box}]}})"
        driver.execute_script(select)
        until(driver, lambda: text_of(driver, "#count").endswith("of 20 trials"))
        run_trials(spec, trials=20)
        until(driver, lambda: text_of(driver, "#count").endswith("of 40 trials"))
        chosen = set(rows(driver))
        shown = "[...document.querySelectorAll('#board tbody tr')].filter(r => !r.hidden)"
        widths = driver.execute_script(f"return {shown}.map(r => r.querySelector('.wrap').textContent)")
        assert chosen
        assert all(text.startswith("width 1,") for text in widths)
        assert driver.get_log("browser") == []


def test_the_comparison_updates_by_itself(driver, tmp_path):
    specs = [spec_of(tmp_path, name=name) for name in ("first", "second")]
    for spec in specs:
        begin(spec)
    run_trials(specs[0], trials=12)
    with served(watch_app(tmp_path), token="correcthorsebattery") as client:
        show(driver, client.endpoint.url)
        assert "token" not in driver.current_url
        run_trials(specs[1], trials=12)
        until(driver, lambda: "12 of 40" in text_of(driver, "[data-sweep=second]"))
        until(driver, lambda: len(driver.find_elements(By.CSS_SELECTOR, "#chart-front-0 .scatterlayer .trace")) == 4)
        driver.execute_script("document.querySelector('[data-sweep=second] a').click()")
        until(driver, lambda: driver.title == "second: kdsweep report")
        until(driver, lambda: driver.execute_script("return document.documentElement.dataset.ready"))
        assert driver.get_log("browser") == []
