"""The built site: complete, without a dead link, and without anything from other hosts."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from ensembleflow.cli import make_parser

REPOSITORY = Path(__file__).resolve().parents[2]
API_PAGES = sorted(path.stem for path in (REPOSITORY / "docs/api").glob("*.md") if path.stem != "index")
PACKAGE = REPOSITORY / "workflow/ensembleflow"


def build(repository: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(repository / "workflow")}
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_links_that_lead_nowhere_are_told_and_fail_the_build(
    copy_repository: Callable[[Path], None], tmp_path: Path
) -> None:
    copy_repository(tmp_path / "clone")
    links = ["nowhere.md", "install.md#nowhere", "../config/nowhere.yaml", "../CONTRIBUTING.md#nowhere"]
    with open(tmp_path / "clone/docs/index.md", "a", encoding="utf-8") as page:
        page.write("".join(f"\n[link]({link})\n" for link in links))
    done = build(tmp_path / "clone", tmp_path / "site")
    assert done.returncode != 0
    assert [link for link in links if link.removeprefix("../") not in done.stderr] == []


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*?\ssrc=[\"']?([^\"'\s>]+)", html)
        loaded += re.findall(r"<link[^>]*?\shref=[\"']?([^\"'\s>]+)", html)
        assert loaded
        assert [each for each in loaded if re.match(r"(https?:)?//", each)] == [], page
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", styles) == []


def asked_for(browser: webdriver.Chrome) -> list[str]:
    """What the page that is shown has loaded."""
    return browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")


def first_found(browser: webdriver.Chrome) -> str:
    """The address of the search's first result, as far as typed."""
    return browser.execute_script("return document.querySelector('.md-search-result__item a')?.href ?? ''")


def wait_for(browser: webdriver.Chrome, condition: Callable[[], object]) -> None:
    WebDriverWait(browser, 60).until(lambda _: condition())


def test_a_browser_finds_a_message_and_asks_no_other_host(address: str, browser: webdriver.Chrome) -> None:
    for page in ("index.html", "repository/config/README.html", "api/allocation.html", "troubleshooting.html"):
        browser.get(f"{address}/{page}")
        wait_for(browser, lambda: asked_for(browser))
        assert [url for url in asked_for(browser) if not url.startswith(address)] == []
    browser.execute_script("document.querySelector('[name=query]').focus()")
    browser.switch_to.active_element.send_keys("an artefact is truncated or damaged")
    wait_for(browser, lambda: "troubleshooting.html" in first_found(browser))
    assert [url for url in asked_for(browser) if not url.startswith(address)] == []


@pytest.mark.parametrize("page", API_PAGES)
def test_the_python_pages_have_every_export(page: str, site: Path) -> None:
    folder = PACKAGE / page
    tree = ast.parse((folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")).read_text("utf-8"))
    (exported,) = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    anchors = re.findall(r'id="?(ensembleflow[\w.]*)', (site / f"api/{page}.html").read_text("utf-8"))
    assert sorted(set(ast.literal_eval(exported)) - {anchor.rpartition(".")[2] for anchor in anchors}) == []


def test_every_folder_of_the_package_has_a_python_page() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {
        "io",
        "commands",
        "first_config",
    }  # internal; the command line has a page of its own
    assert sorted(folders - set(API_PAGES)) == []


def test_the_page_of_commands_has_each_with_its_options(site: Path) -> None:
    page = (site / "commands.html").read_text(encoding="utf-8")
    (commands,) = [action.choices for action in make_parser()._actions if isinstance(action.choices, dict)]
    assert len(commands) > 5
    options = {option for command in commands.values() for option in command._option_string_actions}
    headings = {f"ensembleflow {command}<" for command in commands}
    assert sorted(text for text in headings | options if text not in page) == []


def test_the_architecture_names_every_rule() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    stages = {path.name: path.read_text(encoding="utf-8") for path in REPOSITORY.glob("rules/*.smk")}
    # Of the targets, and where the page names the file as a whole, single rules are no news.
    told = [name for name in stages if name != "targets.smk" and f"`rules/{name}`" not in page]
    rules = [rule for name in told for rule in re.findall(r"^rule (\w+):", stages[name], re.MULTILINE)]
    assert rules
    assert sorted(rule for rule in rules if f"`{rule}`" not in page and not rule.startswith("plot_")) == []
