"""The server's start and its end."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from ensembleflow.errors import BundleError
from ensembleflow.serving.bundle import open_bundle
from ensembleflow.serving.http_server import listen, server_in_thread
from ensembleflow.serving.service import Service
from support.server_process import (
    INFER,
    MODEL,
    PATIENCE_SECONDS,
    ServerProcess,
    infer_json,
    wait_until,
    write_answers,
)


def run_serve(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ensembleflow.cli", "serve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def test_a_port_in_use_ends_in_one_message_before_anything_starts(served_bundle):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        finished = run_serve(served_bundle, "--port", port)
    assert finished.returncode == 1
    assert finished.stderr.startswith("the server cannot listen\n")
    assert f"127.0.0.1:{port}" in finished.stderr and "in use" in finished.stderr
    assert finished.stdout == ""


def test_limits_that_contradict_each_other_are_refused(served_bundle):
    finished = run_serve(served_bundle, "--max-request-images", 100, "--max-queued-images", 99)
    assert finished.returncode == 1
    assert "--max-queued-images" in finished.stderr and "Traceback" not in finished.stderr


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff"])
def test_a_token_that_cannot_be_used_is_refused(served_bundle, tmp_path, content):
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    finished = run_serve(served_bundle, "--token-file", tmp_path / "token")
    assert finished.returncode == 1
    assert finished.stderr.startswith("the token cannot be ")


def test_an_allocation_of_another_ensemble_is_refused(served_bundle, tmp_path):
    allocation = {"members": [{"model": "trial-00007", "device": "cpu0", "batch_size": 8}]}
    allocation["devices"] = [{"name": "cpu0", "core_ids": [0], "memory_mb": 4096}]
    (tmp_path / "devices-1.json").write_text(json.dumps(allocation))
    finished = run_serve(served_bundle, "--allocation", tmp_path / "devices-1.json")
    assert finished.returncode == 1
    assert "an allocation is of another ensemble" in finished.stderr and "trial-00007" in finished.stderr


def test_a_stop_finishes_what_is_at_work_and_leaves_no_process(small_bundle, exported, images, tmp_path):
    path = tmp_path / "devices-1.json"
    placed = {"model": exported.models[0], "device": "cpu0", "batch_size": 16, "memory_mb": 400.0}
    device = {"name": "cpu0", "core_ids": [0], "memory_mb": 4096}
    path.write_text(json.dumps({"members": [placed], "devices": [device]}))
    with ServerProcess(small_bundle, tmp_path, "--allocation", str(path), "--host", "0.0.0.0") as server:
        assert server.client.get("/v2/health/live").status_code == 200
        refused = server.infer(images[:1])
        assert (refused.status_code, "being started" in refused.json()["error"]) == (503, True)
        assert server.client.get("/v2/health/ready").status_code == 503
        server.wait_until_ready()
        workers = server.workers()
        assert "tensorflow" not in Path(f"/proc/{server.process.pid}/maps").read_text()
        metadata = server.client.get(f"/v2/models/{MODEL}").json()
        assert {each["batch_size"] for each in metadata["ensemble"]["allocation"]} == {16}
        with ThreadPoolExecutor(1) as threads:
            with server.stopped_workers():
                answer = threads.submit(server.infer, images)
                wait_until(lambda: server.metric("ensembleflow_requests_in_flight") >= 2, "it is at work")
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: not accepts(server), "no connection is accepted any longer")
                assert not answer.done()
            probabilities = np.reshape(answer.result().json()["outputs"][0]["data"], (len(images), 10))
        np.testing.assert_allclose(probabilities, exported.answers(exported.models[0], images), atol=1e-6)
        assert server.process.wait(PATIENCE_SECONDS) == 0
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "no process is left")
        assert server.process.stdout is not None
        assert "curl --data-binary @image.png http://127.0.0.1:" in server.process.stdout.read()
        events = [line["event"] for line in server.log_lines()]
        assert events[-2:] == ["stopping", "stopped"] or events[-1] == "stopped"
        assert any("token" in event for event in events)  # anybody who reaches this machine may ask


def accepts(server: ServerProcess) -> bool:
    try:
        server.connect().close()
    except OSError:
        return False
    return True


def test_a_bundle_that_answers_otherwise_than_it_says_is_never_ready(small_bundle, tmp_path):
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    answers = np.load(bundle / "check" / "probabilities.npy")
    answers[7, 3] += 1e-3
    write_answers(bundle, answers)
    with pytest.raises(BundleError, match="answers differently"), serve_in_thread(bundle):
        pass
    finished = run_serve(bundle, "--port", 0)
    assert finished.returncode == 1
    assert "the bundle answers differently" in finished.stderr and "1 of 200 images differ" in finished.stderr
    assert "ready:" not in finished.stdout


def serve_in_thread(bundle: Path):
    opened = open_bundle(bundle)
    return server_in_thread(Service(opened, opened.dispatcher()), listen("127.0.0.1", 0))


def test_a_program_may_serve_in_a_thread_of_its_own(small_bundle, exported, images):
    with serve_in_thread(small_bundle) as url:
        answer = httpx.post(url + INFER, json=infer_json(images[:2]))
        probabilities = np.reshape(answer.json()["outputs"][0]["data"], (2, 10))
        np.testing.assert_allclose(probabilities, exported.answers(exported.models[0], images[:2]), atol=1e-6)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/v2/health/live")
