"""The voting page, in a real browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from support.server_process import PATIENCE_SECONDS, ServerProcess

_SIZES = {"desktop": (1200, 900), "phone": (390, 844)}


@pytest.fixture
def digit(tmp_path: Path) -> tuple[Path, np.ndarray]:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8), dtype=np.uint8)
    path = tmp_path / "digit.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


def wait_for(browser: webdriver.Chrome, condition) -> None:
    WebDriverWait(browser, PATIENCE_SECONDS).until(condition)


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def shown(browser: webdriver.Chrome, element_id: str) -> bool:
    return browser.find_element(By.ID, element_id).is_displayed()


def choose(browser: webdriver.Chrome, path: Path) -> None:
    browser.find_element(By.ID, "file").send_keys(str(path))


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the browser's console says, but for answers that are no success."""
    return [
        entry["message"] for entry in browser.get_log("browser") if "Failed to load resource" not in entry["message"]
    ]


@pytest.mark.parametrize("colors", ["light", "dark"])
@pytest.mark.parametrize("size", _SIZES)
def test_a_chosen_image_is_voted_on(server: ServerProcess, exported, browser, digit, tmp_path, size, colors):
    path, pixels = digit
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colors}]}
    )
    width, height = _SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(server.url)
    choose(browser, path)
    wait_for(browser, lambda browser: texts(browser, "#votes li"))

    expected = exported.average(pixels[None])[0]
    best = np.argsort(-expected)[:5]
    assert texts(browser, "#classes .name") == [str(digit) for digit in best]
    assert texts(browser, "#classes .number")[0] == f"{100 * expected[best[0]]:.1f} %"
    rows = np.stack([exported.answers(model, pixels[None])[0] for model in exported.models])
    assert texts(browser, "#votes .who") == list(exported.models)
    assert texts(browser, "#votes .name") == [str(digit) for digit in rows.argmax(axis=1)]
    n_others = int((rows.argmax(axis=1) != best[0]).sum())
    assert len(browser.find_elements(By.CSS_SELECTOR, "#votes .odd")) == n_others
    assert f"{n_others} of 3" in browser.find_element(By.ID, "verdict").text or n_others == 0
    assert "digit.png · 8 × 8 pixels" in browser.find_element(By.ID, "caption").text
    bars = [bar.size["width"] for bar in browser.find_elements(By.CSS_SELECTOR, "#classes .bar i")]
    assert bars == sorted(bars, reverse=True) and bars[0] > bars[-1]
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert complaints(browser) == []
    browser.save_screenshot(str(tmp_path / f"{size}-{colors}.png"))


def test_what_is_no_image_is_told(server: ServerProcess, browser, digit, tmp_path):
    (tmp_path / "notes.png").write_text("not an image")
    browser.get(server.url)
    choose(browser, tmp_path / "notes.png")
    wait_for(browser, lambda browser: "an image cannot be read" in browser.find_element(By.ID, "status").text)
    assert not shown(browser, "image") and not texts(browser, "#votes li")
    choose(browser, digit[0])
    wait_for(browser, lambda browser: texts(browser, "#votes li"))
    assert shown(browser, "image") and not shown(browser, "status")


def test_a_dropped_and_a_pasted_image_are_voted_on(server: ServerProcess, browser):
    for event, carrier in (("drop", "DragEvent"), ("paste", "ClipboardEvent")):
        browser.get(server.url)
        name = "dataTransfer" if event == "drop" else "clipboardData"
        browser.execute_script(
            f"""const canvas = document.createElement("canvas"); canvas.width = canvas.height = 8;
            canvas.toBlob(blob => {{
              const data = new DataTransfer(); data.items.add(new File([blob], "canvas.png"));
              document.dispatchEvent(new {carrier}("{event}", {{{name}: data, bubbles: true}}));
            }});"""
        )
        wait_for(browser, lambda browser: len(texts(browser, "#votes li")) == 3)


def test_the_keyboard_reaches_the_image_and_the_token(server: ServerProcess, browser):
    browser.get(server.url)
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "file"


def test_the_page_asks_for_a_token_where_one_is_needed(small_server: ServerProcess, browser, digit):
    browser.get(small_server.url)
    choose(browser, digit[0])
    wait_for(browser, lambda browser: shown(browser, "token"))
    assert "wants a token" in browser.find_element(By.ID, "status").text
    browser.switch_to.active_element.send_keys("wrong", Keys.ENTER)
    wait_for(browser, lambda browser: "not the server's" in browser.find_element(By.ID, "status").text)
    field = browser.find_element(By.ID, "token")
    field.clear()
    field.send_keys("a-token", Keys.ENTER)
    wait_for(browser, lambda browser: len(texts(browser, "#votes li")) == 1)
    assert not shown(browser, "status")


def test_the_browser_refuses_foreign_scripts_and_connections(server: ServerProcess, browser):
    policy = server.client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    browser.get(server.url)
    browser.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.foreign = 1';"
        "document.body.append(script);"
    )
    assert browser.execute_script("return window.foreign") is None
    assert any("Content Security Policy" in message for message in complaints(browser))


def test_the_interface_is_readable(server: ServerProcess, browser, tmp_path):
    browser.get(f"{server.url}/docs")
    assert "/v2/models/{name}/infer" in browser.find_element(By.TAG_NAME, "body").text
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert complaints(browser) == []
    browser.save_screenshot(str(tmp_path / "docs.png"))
