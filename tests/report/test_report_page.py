"""The page in a real browser: it loads alone, follows the keyboard, and fits a dark room and a phone."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from ensembleflow.io import read_json
from support.complete_study import BUDGETS
from support.report_artefacts import STUDY

WIDE, PHONE = (1280, 900), (360, 740)
N_PLOTS_LEAST = 11  # one a figure, and one more a further bracket


def open_page(browser: Chrome, page: Path, size: tuple[int, int] = WIDE, scheme: str = "light") -> None:
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    prefer(browser, scheme)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what came before is not this page's
    browser.get(page.as_uri())
    wait(browser, lambda: browser.execute_script("return 'ready' in document.documentElement.dataset"))
    wait(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, ".plot .main-svg")) >= N_PLOTS_LEAST)


def prefer(browser: Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(browser: Chrome, condition: Any) -> None:
    WebDriverWait(browser, 60, poll_frequency=0.1).until(lambda _: condition())


def shown_panels(browser: Chrome) -> list[str]:
    panels = browser.find_elements(By.CSS_SELECTOR, "article.choice")
    return [str(panel.get_attribute("data-budget")) for panel in panels if panel.is_displayed()]


def tab_until(browser: Chrome, reached: str) -> None:
    """Press Tab until the element in focus matches a selector."""
    for _ in range(80):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.execute_script("return document.activeElement.matches(arguments[0])", reached):
            return
    pytest.fail(f"Tab never reaches {reached}")


def traces_shown(browser: Chrome, plot: str) -> list[str]:
    """The budgets of the traces that a plot shows."""
    script = "return document.getElementById(arguments[0]).data.map((t) => t.visible !== false && t.meta?.budget)"
    return sorted({budget for budget in browser.execute_script(script, plot) if budget})


@pytest.fixture(scope="module")
def opened(browser: Chrome, page: Path) -> Chrome:
    """The page as it opens, for tests that only look at it; they come first."""
    open_page(browser, page)
    return browser


def test_it_loads_alone_without_errors(opened: Chrome, page: Path) -> None:
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert [url for url in asked if not url.startswith(("data:", "blob:")) and url != page.as_uri()] == []
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_every_plot_is_drawn(opened: Chrome) -> None:
    plots = opened.find_elements(By.CSS_SELECTOR, ".plot")
    assert len(plots) >= N_PLOTS_LEAST
    for plot in plots:
        name = plot.get_attribute("id")
        marks = ".point, .scatterlayer .trace, .barlayer .trace, .parcoords .axis"
        assert plot.find_elements(By.CSS_SELECTOR, marks), f"{name} is empty"


def test_every_figure_has_words_a_table_and_its_data(opened: Chrome) -> None:
    figures = opened.find_elements(By.TAG_NAME, "figure")
    assert len(figures) >= 9
    for figure in figures:
        name = figure.get_attribute("aria-labelledby")
        assert opened.find_element(By.ID, name).text
        for plot in figure.find_elements(By.CSS_SELECTOR, ".plot"):
            assert plot.get_attribute("role") == "img" and plot.get_attribute("aria-label")
            assert len(opened.find_element(By.ID, plot.get_attribute("aria-describedby")).text) > 40
        assert figure.find_elements(By.CSS_SELECTOR, "table caption")
        assert figure.find_elements(By.CSS_SELECTOR, "tbody tr")
    links = [link.get_attribute("href") for link in opened.find_elements(By.CSS_SELECTOR, ".sources a")]
    assert len(links) > 15
    files = [Path(link.removeprefix("file://")) for link in links]
    assert [file for file in files if not file.exists()] == []


def test_its_outline_skips_no_level(opened: Chrome) -> None:
    levels = [int(head.tag_name[1]) for head in opened.find_elements(By.CSS_SELECTOR, "h1, h2, h3, h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    titles = [head.text for head in opened.find_elements(By.TAG_NAME, "h2")]
    assert titles == ["Decision", "Mistakes", "Search", "Library", "Selection", "Allocation", "Provenance"]
    ids = opened.execute_script("return [...document.querySelectorAll('[id]')].map((part) => part.id)")
    assert len(ids) == len(set(ids))


def test_the_arrow_keys_choose_a_budget(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    (before,) = shown_panels(browser)
    tab_until(browser, "input[name=budget]")
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    (after,) = shown_panels(browser)
    assert after == BUDGETS[(BUDGETS.index(before) + 1) % len(BUDGETS)] != before
    for select in browser.find_elements(By.CSS_SELECTOR, "select[data-choose]"):
        assert Select(select).first_selected_option.text == after
    for plot in ("plot-front-1", "plot-calibration-1", "plot-trace-1", "plot-benches-1"):
        assert traces_shown(browser, plot) == [after]
    for part in browser.find_elements(By.CSS_SELECTOR, "[data-budget]"):
        assert part.is_displayed() == (part.get_attribute("data-budget") == after)
    told = browser.find_element(By.CSS_SELECTOR, "[role=status]").get_attribute("textContent")
    assert told.startswith(f"Budget {after}") and "test error" in told


def test_a_section_far_below_chooses_as_well(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    tab_until(browser, "#benches select")
    ActionChains(browser).send_keys(Keys.HOME).perform()
    assert shown_panels(browser) == [BUDGETS[0]]
    assert browser.find_element(By.CSS_SELECTOR, f"input[value='{BUDGETS[0]}']").is_selected()


def test_a_click_on_the_front_chooses(browser: Chrome, page: Path) -> None:
    open_page(browser, page)
    other = next(budget for budget in BUDGETS if [budget] != shown_panels(browser))
    x, y = browser.execute_script(PLACE_OF_BUDGET, other)
    pointer = ActionChains(browser)
    pointer.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    pointer.w3c_actions.pointer_action.pause(0.3)
    pointer.click().perform()
    wait(browser, lambda: shown_panels(browser) == [other])


PLACE_OF_BUDGET = """
const plot = document.getElementById("plot-front-1");
plot.scrollIntoView({block: "center"});
const {x, y, customdata} = plot._fullData.find((each) => each.name === "chosen for a budget");
const index = customdata.findIndex((budgets) => budgets.split(" ").includes(arguments[0]));
const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
return [box.left + xaxis._offset + xaxis.d2p(x[index]), box.top + yaxis._offset + yaxis.d2p(y[index])];
"""

# How light each is, 0 to 1: the page's and the plots' grounds, headings and the plots' texts.
LIGHTNESS = """
const lightness = (text) => text.match(/[\\d.]+/g).slice(0, 3).reduce((sum, each) => sum + Number(each), 0) / 765;
const style = (part) => getComputedStyle(part);
const all = (selector) => [...document.querySelectorAll(selector)];
return [
  [
    ...all("body, figure").map((part) => style(part).backgroundColor),
    ...all(".plot .main-svg:first-of-type").map((part) => style(part).background),
  ],
  [
    ...all("h2, figure p").map((part) => style(part).color),
    ...all(".plot .xtick text, .plot .xtitle").map((part) => style(part).fill),
  ],
].map((colours) => colours.map(lightness));
"""


def test_it_can_be_read_in_the_dark(browser: Chrome, page: Path) -> None:
    open_page(browser, page, scheme="dark")
    grounds, inks = browser.execute_script(LIGHTNESS)
    assert len(grounds) > 10 and len(inks) > 40
    assert max(grounds) < 0.2 and min(inks) > 0.5
    prefer(browser, "light")  # the page notices while it is open
    wait(browser, lambda: min(browser.execute_script(LIGHTNESS)[0]) > 0.9)
    wait(browser, lambda: max(browser.execute_script(LIGHTNESS)[1]) < 0.5)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Chrome, page: Path, scheme: str) -> None:
    open_page(browser, page, PHONE, scheme)
    for details in browser.find_elements(By.TAG_NAME, "details"):
        browser.execute_script("arguments[0].open = true", details)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    assert browser.execute_script(TOO_WIDE) == []
    assert browser.execute_script(TOO_SMALL) == []


VISIBLE = """
const visible = (selector) => [...document.querySelectorAll(selector)].filter((part) => part.checkVisibility());
const box = (part) => part.getBoundingClientRect();
"""
# What scrolls sideways by itself may reach further.
TOO_WIDE = f"""{VISIBLE}
return visible("main *")
  .filter((part) => !part.closest(".scroll *, pre, code, .unseen, .budgets *") && box(part).right > innerWidth + 1)
  .map((part) => part.outerHTML.slice(0, 80));
"""
# Targets of at least 24 pixels: WCAG 2.2, 2.5.8.
TOO_SMALL = f"""{VISIBLE}
return visible(".budgets label, button, select, summary")
  .filter((part) => Math.min(box(part).height, box(part).width) < 24)
  .map((part) => part.outerHTML.slice(0, 80));
"""


def test_each_panel_says_what_the_artefacts_say(browser: Chrome, page: Path, results: Path) -> None:
    open_page(browser, page)
    for budget in BUDGETS:
        browser.find_element(By.CSS_SELECTOR, f"input[value='{budget}']").send_keys(Keys.SPACE)
        panel = browser.find_element(By.CSS_SELECTOR, f"article[data-budget='{budget}']")
        text = panel.text.replace("\N{NO-BREAK SPACE}", " ")
        chosen = read_json(results / STUDY / f"selection/budget-{budget}.json")
        allocation = read_json(results / STUDY / f"allocation/budget-{budget}/devices-2.json")
        assert f"{chosen['test']['error'] * 100:.2f} %" in text
        assert f"{allocation['images_per_second']:,.0f} images/s" in text
        rows = panel.find_element(By.CSS_SELECTOR, ".tabled").find_elements(By.CSS_SELECTOR, "tbody th")
        assert [row.text for row in rows] == chosen["members"]
        assert re.search(rf"ensembleflow serve \S*/{STUDY}/bundles/budget-{budget}\n", text)
