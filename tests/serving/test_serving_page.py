"""docs/serving.md as typed: its Python, its options, its metrics."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ensembleflow.commands.serve_command import add_command
from ensembleflow.serving.live_shares import LiveShares
from support.server_process import MODEL, PATIENCE_SECONDS, ServerProcess

PAGE = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text(encoding="utf-8")
TRITON, PLAIN, IN_PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("code", [TRITON, PLAIN], ids=["triton", "plain"])
def test_its_clients_get_answers(server: ServerProcess, exported, code: str) -> None:
    address = "{}:{}".format(*server.address)
    printed = run(code.replace("127.0.0.1:8000", address).replace("digits-hyperband-s0", MODEL))
    assert printed.startswith("(64, 10) trial-00000,trial-00001,trial-00002") or len(printed.split(",")) == 10


def test_its_server_in_python_is_ready(small_bundle: Path) -> None:
    printed = run(re.sub(r'open_bundle\(".*?"\)', f"open_bundle({str(small_bundle)!r})", IN_PYTHON))
    assert printed.startswith("http://127.0.0.1:")


def test_it_explains_every_option() -> None:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    add_command(subparsers)
    options = re.findall(r"^ +(--[a-z-]+)", subparsers.choices["serve"].format_help(), re.MULTILINE)
    assert len(options) > 10
    assert [option for option in options if f"`{option}`" not in PAGE and f"{option} " not in PAGE] == []


def test_its_metrics_are_those_of_the_server(server: ServerProcess) -> None:
    text = server.client.get("/metrics").text
    told = {name for name in re.findall(r"^# TYPE ensembleflow_(\w+) ", text, re.MULTILINE) if "_created" not in name}
    rows = PAGE[PAGE.index("| metric (") : PAGE.index("The log has one JSON object")]
    exposition = CollectorRegistry()
    exposition.register(LiveShares({"a": (1.0, 1.0), "b": (0.1, 0.2)}))
    of_cascades = set(re.findall(r"^# TYPE ensembleflow_(\w+) ", generate_latest(exposition).decode(), re.MULTILINE))
    assert set(re.findall(r"`([a-z_]+)(?:\{[a-z,]+\})?`", rows)) - {"ensembleflow_"} == told | of_cascades
