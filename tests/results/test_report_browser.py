"""The report in a real browser: no error, charts drawn, brushing, hostile texts as text, narrow and dark pages."""

from __future__ import annotations

import pytest
from browsers import SECONDS, available, browser, rows, show
from made_up import EVIL, begin, confirm, predict, run_trials, spec_of
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from kdsweep.errors import printable
from kdsweep.results.frames import load_results
from kdsweep.results.report.page import write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not available(), reason="needs Debian's packages chromium and chromium-driver"),
]


@pytest.fixture(scope="module")
def page(made_up, tmp_path_factory):
    return write_report(load_results(made_up.root), tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.mark.parametrize(("width", "scheme"), [(1600, "light"), (1600, "dark"), (400, "light"), (400, "dark")])
def test_it_opens_without_an_error_with_all_charts_and_without_a_horizontal_bar(driver, page, width, scheme):
    show(driver, page.as_uri(), width, scheme)
    assert driver.get_log("browser") == []
    charts = driver.find_elements(By.CSS_SELECTOR, ".chart")
    assert len(charts) == 14
    for chart in charts:
        marks = chart.find_elements(By.CSS_SELECTOR, ".scatterlayer path, .barlayer path, .heatmaplayer image")
        assert marks, chart.get_attribute("id")
    assert (
        driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    )
    luminance = (
        driver.execute_script("return getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")
    )
    assert (int(luminance[0]) < 60) == (scheme == "dark")
    ink = driver.execute_script("return getComputedStyle(document.body).color")
    label = driver.find_element(By.CSS_SELECTOR, "#chart-learning .xtitle")
    assert label.value_of_css_property("fill") == ink


def test_on_a_narrow_page_the_leaderboard_begins_with_the_accuracy(driver, page, made_up):
    best = load_results(made_up.root).best().iloc[0]
    show(driver, page.as_uri(), 400)
    script = """
      const cells = [...document.querySelectorAll('#board tbody tr:first-child td')];
      return cells.map((cell) => [cell.textContent, cell.getBoundingClientRect().right]);
    """
    cells = driver.execute_script(script)
    places = dict(cells[:4])
    assert places[best["trial"]] < 400
    assert places[f"{best['val_accuracy']:.2%}"] < 400


def test_hostile_texts_are_text(driver, page):
    show(driver, page.as_uri())
    assert driver.title == "made-up: kdsweep report"
    shown = driver.find_element(By.CSS_SELECTOR, ".reason").get_property("textContent")
    assert shown == printable(EVIL)
    images = driver.find_elements(By.TAG_NAME, "img")
    assert len(images) == 6
    assert all(image.get_attribute("src").startswith("data:image/png;base64,") for image in images)
    assert driver.execute_script("return document.getElementById('repeat').textContent").count("<b>bold</b>") >= 2


def test_a_script_in_the_page_would_not_run(driver, page, tmp_path):
    hurt = tmp_path / "hurt.html"
    hurt.write_text(page.read_text().replace("</main>", "<script>document.title = 'hacked'</script></main>"))
    show(driver, hurt.as_uri())
    assert driver.title == "made-up: kdsweep report"
    assert "Content Security Policy" in driver.get_log("browser")[0]["message"]


def test_brushing_an_axis_filters_the_leaderboard_and_clear_shows_all_again(driver, page, made_up):
    trials = load_results(made_up.root).best(100).set_index("trial")
    show(driver, page.as_uri())
    before = rows(driver)
    chart = driver.find_element(By.CSS_SELECTOR, "#chart-parallel")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", chart)
    # From just left above the top of the axis `width` to below 1, its topmost value.
    script = """
      const axes = arguments[0]._fullLayout, box = arguments[0].querySelector('.nsewdrag').getBoundingClientRect();
      const at = (x, y) => [box.left + axes.xaxis.l2p(x), box.top + axes.yaxis.l2p(y)];
      return [...at(0.8, 1.05), ...at(1.2, 0.9)].map(Math.round);
    """
    left, top, right, bottom = driver.execute_script(script, chart)
    actions = ActionChains(driver)
    actions.w3c_actions.pointer_action.move_to_location(left, top).pointer_down()
    actions.w3c_actions.pointer_action.move_to_location((left + right) // 2, (top + bottom) // 2)
    actions.w3c_actions.pointer_action.move_to_location(right, bottom).pointer_up()
    actions.perform()
    wide = trials.index[trials["width"] == 1].tolist()
    WebDriverWait(driver, SECONDS).until(lambda d: rows(d) != before)
    assert rows(driver) == wide[:15]
    assert driver.find_element(By.ID, "count").text == f"{len(wide)} of 40 trials"
    driver.find_element(By.CSS_SELECTOR, "#selection button").click()
    assert rows(driver) == before


def test_the_leaderboard_is_filtered_by_method_and_shows_more(driver, page, made_up):
    results = load_results(made_up.root)
    show(driver, page.as_uri())
    assert len(rows(driver)) == 15
    driver.execute_script("document.getElementById('more').click()")
    assert len(rows(driver)) == 40
    script = "const s = document.getElementById('by-method'); s.value = 'dkd'; s.dispatchEvent(new Event('change'))"
    driver.execute_script(script)
    assert set(rows(driver)) == set(results.trials.loc[results.trials["method"] == "dkd", "trial"])


def test_a_sweep_without_trials_opens_without_an_error(driver, tmp_path):
    spec = spec_of(tmp_path)
    spec.sweep_dir.root.mkdir()
    spec.save(spec.sweep_dir.spec)
    show(driver, write_report(load_results(spec.sweep_dir.root)).as_uri())
    assert driver.get_log("browser") == []


def test_pictures_are_drawn_and_enlarged_without_smoothing(driver, page):
    show(driver, page.as_uri())
    for image in driver.find_elements(By.CSS_SELECTOR, ".strip img"):
        assert image.get_property("naturalWidth") == 8
        assert image.size == {"width": 104, "height": 104}
        assert image.value_of_css_property("image-rendering") == "pixelated"


def test_a_cell_of_the_confusion_matrix_names_its_classes_as_text(driver, page):
    show(driver, page.as_uri())
    chart = driver.find_element(By.ID, "chart-confusion-student")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", chart)
    script = """
      const axes = arguments[0]._fullLayout, box = arguments[0].querySelector('.nsewdrag').getBoundingClientRect();
      return [box.left + axes.xaxis.l2p(0), box.top + axes.yaxis.l2p(1)].map(Math.round);
    """
    left, top = driver.execute_script(script, chart)
    actions = ActionChains(driver)
    actions.w3c_actions.pointer_action.move_to_location(left - 5, top).move_to_location(left, top)
    actions.perform()
    label = WebDriverWait(driver, SECONDS).until(lambda d: d.execute_script(
        "return arguments[0].querySelector('.hoverlayer').textContent", chart))  # fmt: skip
    assert label.startswith(f"dog classified as {printable(EVIL)[:15]}…: ")
    assert driver.title == "made-up: kdsweep report"


@pytest.mark.parametrize(("width", "classes"), [(1600, 100), (400, 100), (400, 10)])
def test_matrices_of_many_classes_are_drawn_without_an_error(driver, tmp_path, width, classes):
    spec = spec_of(tmp_path)
    begin(spec, classes=[f"class number {number}" for number in range(classes)])
    run_trials(spec, 20)
    confirm(spec)
    predict(spec, 2000, classes)
    show(driver, write_report(load_results(spec.sweep_dir.root)).as_uri(), width)
    assert driver.get_log("browser") == []
    for role in ("student", "plain", "teacher"):
        chart = driver.find_element(By.ID, f"chart-confusion-{role}")
        assert len(chart.find_elements(By.CSS_SELECTOR, ".heatmaplayer image")) == 2
        labels = chart.find_elements(By.CSS_SELECTOR, ".ytick text")
        names = [label.text for label in sorted(labels, key=lambda label: label.location["y"])]  # from the top
        assert names == ([f"class number {number}" for number in range(10)] if classes == 10 else [])
