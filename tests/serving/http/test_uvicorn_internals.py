"""What the server relies on in uvicorn and httptools without their promise, held against the installed versions.

That it does what it should is in the tests beside this one, at real sockets.
"""

from __future__ import annotations

import asyncio
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.protocols.http import httptools_impl
from uvicorn.server import ServerState

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGE = REPOSITORY / "workflow/ensembleflow"
FENCE = PACKAGE / "serving/http"

CALLBACKS = ("on_message_begin", "on_headers_complete", "on_body", "on_message_complete", "on_response_complete")


async def answer(scope: object, receive: object, send: object) -> None:
    """An application that is never asked."""


@pytest.fixture
def protocol() -> httptools_impl.HttpToolsProtocol:
    loop = asyncio.new_event_loop()
    config = uvicorn.Config(answer, http="httptools", lifespan="off", log_config=None)
    config.load()
    yield httptools_impl.HttpToolsProtocol(config, ServerState(), {}, loop)
    loop.close()


def test_no_other_module_touches_uvicorn_or_its_parser() -> None:
    found = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if not path.is_relative_to(FENCE)
        and re.search(r"^ *(import|from) (uvicorn|httptools)\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert found == []


@pytest.mark.parametrize("name", ["uvicorn", "httptools"])
def test_the_package_takes_the_versions_that_this_was_tried_with(name: str) -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [text for group in extras["optional-dependencies"].values() for text in group]
    (requirement,) = [each for each in map(Requirement, texts) if each.name == name]
    major, minor, *_ = map(int, metadata.version(name).split("."))
    assert requirement.specifier.contains(metadata.version(name))
    assert not requirement.specifier.contains(f"{major}.{minor + 1}.0"), "an untried version may do otherwise"


def test_a_connection_is_built_from_these(protocol: httptools_impl.HttpToolsProtocol) -> None:
    names = {"loop", "parser", "headers", "scope", "url", "cycle", "pipeline", "flow", "connections", "transport"}
    made_later = {"headers", "scope", "url", "flow", "transport"}  # annotated, and set with the connection or request
    assert names - made_later <= set(vars(protocol))
    assert protocol.timeout_keep_alive == 5
    assert protocol.expect_100_continue is False
    assert protocol.cycle is None
    assert callable(protocol._unset_keepalive_if_required)
    assert all(callable(getattr(httptools_impl.HttpToolsProtocol, name)) for name in CALLBACKS)
    assert httptools_impl.STATUS_LINE[503].startswith(b"HTTP/1.1 503 ")
    assert httptools_impl.STATUS_LINE[503].endswith(b"\r\n")


def test_an_answer_is_made_from_these(protocol: httptools_impl.HttpToolsProtocol) -> None:
    cycle = set(httptools_impl.RequestResponseCycle.__init__.__annotations__)
    assert {"scope", "transport", "flow", "on_response", "keep_alive", "expect_100_continue"} <= cycle
    source = Path(httptools_impl.__file__).read_text(encoding="utf-8")
    for name in ("response_complete", "response_started", "more_body", "keep_alive"):
        assert f"self.{name} = " in source


def test_a_server_ends_by_two_flags_and_counts_its_connections() -> None:
    server = uvicorn.Server(uvicorn.Config(answer, log_config=None))
    assert (server.should_exit, server.force_exit) == (False, False)
    assert server.server_state.connections == set()
    assert callable(server.capture_signals)
