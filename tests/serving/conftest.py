"""Bundles of the stand-in exported functions, and servers of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.exported_functions import Exported
from support.server_process import MAX_IMAGES, TOKEN, ServerProcess, write_answers
from support.stage_artefacts import Results


@pytest.fixture(scope="session")
def served_bundle(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of all three members."""
    folder = tmp_path_factory.mktemp("served")
    results = Results(folder, exported, exported.models)
    results.make_bundle(folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="session")
def running_server(served_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(served_bundle, tmp_path_factory.mktemp("server")) as server:
        yield server.wait_until_ready()


@pytest.fixture
def server(running_server: ServerProcess) -> ServerProcess:
    """A server with all of its members alive."""
    return running_server.wait_until_ready()


@pytest.fixture(scope="session")
def small_bundle(served_bundle: Path, exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the first member alone."""
    bundle = Path(shutil.copytree(served_bundle, tmp_path_factory.mktemp("small") / "bundle"))
    manifest = json.loads((bundle / "bundle.json").read_text())
    answers = exported.answers(exported.models[0], np.load(bundle / "check" / "images.npy"))
    write_answers(bundle, answers, members=manifest["members"][:1], allocation=manifest["allocation"][:1])
    return bundle


@pytest.fixture(scope="session")
def running_small_server(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """It takes little, waits briefly, and wants a token."""
    options = {
        "--max-request-images": MAX_IMAGES,
        "--max-queued-images": MAX_IMAGES,
        "--max-body-mb": 1,
        "--max-connections": 60,
        "--read-timeout": 1,
    }
    words = [str(word) for option in options.items() for word in option]
    with ServerProcess(small_bundle, tmp_path_factory.mktemp("small"), *words, token=TOKEN) as server:
        yield server.wait_until_ready()


@pytest.fixture
def small_server(running_small_server: ServerProcess) -> ServerProcess:
    return running_small_server.wait_until_ready()
