"""The server, as a real process, asked by clients that others wrote and by clients that behave badly."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image

from server_process import (
    INFER,
    MAX_IMAGES,
    MODEL,
    PATIENCE_SECONDS,
    TOKEN,
    ServerProcess,
    infer_json,
    read_all,
    request_bytes,
    wait_until,
    write_answers,
)


@pytest.fixture(scope="module")
def client(running_server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(running_server.url.removeprefix("http://"), concurrency=8) as client:
        yield client


def triton_input(images: np.ndarray, datatype: str = "UINT8", binary: bool = True) -> list[triton.InferInput]:
    tensor = triton.InferInput("images", images.shape, datatype)
    tensor.set_data_from_numpy(images, binary_data=binary)
    return [tensor]


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def bomb() -> bytes:
    """A few bytes that promise 65536x65536 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 65536, 65536, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return png(np.zeros((1, 1), np.uint8))[:8] + chunk + png(np.zeros((1, 1), np.uint8))[33:]


# Clients of the protocol


def test_triton_finds_the_server_live_and_the_model_ready(server, client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "4x")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]


def test_triton_reads_what_the_model_is(server, client, exported):
    metadata = client.get_model_metadata(MODEL, "4x")
    assert (metadata["name"], metadata["versions"]) == (MODEL, ["4x"])
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    shapes = {output["name"]: output["shape"] for output in metadata["outputs"]}
    assert shapes == {"probabilities": [-1, 10], "member_probabilities": [-1, -1, 10], "disagreement": [-1]}
    assert metadata["ensemble"]["class_names"] == [str(digit) for digit in range(10)]
    assert metadata["ensemble"]["members"] == list(exported.models)
    places = [(each["model"], each["device"], each["state"]) for each in metadata["ensemble"]["allocation"]]
    assert places == [(model, "cpu0", "ready") for model in exported.models]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("datatype", "dtype"), [("UINT8", np.uint8), ("FP32", np.float32), ("INT64", np.int64)])
def test_triton_gets_the_members_average(server, client, exported, images, datatype, dtype, binary):
    result = client.infer(MODEL, triton_input(images.astype(dtype), datatype, binary), request_id="the-id")
    assert result.get_response()["id"] == "the-id"
    np.testing.assert_allclose(result.as_numpy("probabilities"), exported.average(images), atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_gets_each_members_probabilities_and_their_disagreement(server, client, exported, images, binary):
    names = ("disagreement", "probabilities", "member_probabilities")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    result = client.infer(MODEL, triton_input(images), outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == list(names)
    by_member = np.stack([exported.answers(model, images) for model in exported.models], axis=1)
    np.testing.assert_allclose(result.as_numpy("member_probabilities"), by_member, atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("probabilities"), by_member.mean(axis=1), atol=1e-6)
    others = by_member.argmax(axis=2) != by_member.mean(axis=1).argmax(axis=1)[:, None]
    np.testing.assert_allclose(result.as_numpy("disagreement"), others.mean(axis=1), atol=1e-6)


def test_each_answer_belongs_to_its_own_request(server, exported):
    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
            for _ in range(15):
                images = random.integers(0, 256, (int(random.integers(1, 70)), 8, 8, 1), dtype=np.uint8)
                binary = bool(random.integers(2))
                result = client.infer(MODEL, triton_input(images, binary=binary), request_id=f"{seed}")
                assert result.get_response()["id"] == f"{seed}"
                np.testing.assert_allclose(result.as_numpy("probabilities"), exported.average(images), atol=1e-6)

    with ThreadPoolExecutor(12) as threads:
        for _ in threads.map(ask, range(12)):
            pass


def test_triton_is_told_what_is_wrong(server, client, images):
    with pytest.raises(triton.InferenceServerException, match="another shape") as caught:
        client.infer(MODEL, triton_input(images[:, :4]))
    assert caught.value.status() == "400"
    with pytest.raises(triton.InferenceServerException, match="there is no model 'other'") as caught:
        client.infer("other", triton_input(images))
    assert caught.value.status() == "404"
    with pytest.raises(triton.InferenceServerException, match=r"there is no version '8x' \(expected: '4x'\)"):
        client.infer(MODEL, triton_input(images), model_version="8x")


# Image files


def test_an_image_file_is_classified_as_training_read_it(server, exported):
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8), dtype=np.uint8)
    answer = server.client.post("/classify?top=3", content=png(pixels)).json()
    expected = exported.average(pixels[None, :, :, None])[0]
    best = np.argsort(-expected)[:3]
    assert [each["class"] for each in answer["classes"]] == [str(digit) for digit in best]
    assert [each["probability"] for each in answer["classes"]] == pytest.approx(list(expected[best]), abs=1e-6)
    assert [vote["member"] for vote in answer["votes"]] == list(exported.models)
    for vote in answer["votes"]:
        row = exported.answers(vote["member"], pixels[None])[0]
        assert (vote["class"], vote["agrees"]) == (str(row.argmax()), row.argmax() == best[0])
        assert vote["probability"] == pytest.approx(row.max(), abs=1e-6)
    assert answer["disagreement"] == pytest.approx(np.mean([not vote["agrees"] for vote in answer["votes"]]))
    assert (answer["width"], answer["height"]) == (8, 8)


def test_a_large_photograph_is_scaled(server):
    answer = server.client.post("/classify", content=png(np.full((300, 200, 3), 9, np.uint8)))
    assert answer.status_code == 200
    assert (answer.json()["width"], answer.json()["height"]) == (200, 300)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "0 bytes"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "an image file (PNG, JPEG"),
        (png(np.zeros((50, 50), np.uint8))[:60], "an image cannot be read"),
        (png(np.zeros((8001, 8001), np.uint8)), "8001x8001 pixels"),
        (bomb(), "too large"),
    ],
    ids=["empty", "postscript", "truncated", "many-pixels", "bomb"],
)
def test_what_is_no_image_is_refused(server, content, part):
    answer = server.client.post("/classify", content=content)
    assert answer.status_code == 400
    assert part in answer.json()["error"]


def test_a_form_or_an_encoded_body_is_refused_with_a_hint(server, images):
    answer = server.client.post("/classify", files={"image": png(images[0, :, :, 0])})
    assert (answer.status_code, "--data-binary" in answer.json()["error"]) == (415, True)
    answer = server.client.post(INFER, content=b"x", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, "gzip" in answer.json()["error"]) == (415, True)


def test_a_wrong_query_or_path_or_method_is_told_as_json(server):
    for answer, status in (
        (server.client.post("/classify?top=0", content=b"x"), 400),
        (server.client.get("/nowhere"), 404),
        (server.client.get(INFER), 405),
    ):
        assert (answer.status_code, list(answer.json())) == (status, ["error"])


# Members that fail


def test_a_killed_member_costs_some_requests_a_503_and_partial_answers_say_so(server, exported, images):
    os.kill(server.workers()[0], signal.SIGKILL)
    refused = partial = False

    def seen() -> bool:
        nonlocal refused, partial
        whole = server.infer(images[:2])
        if whole.status_code == 503:
            refused = True
            assert "not available" in whole.json()["error"]
            assert whole.headers["retry-after"]
        else:
            assert whole.json()["parameters"]["members_used"] == ",".join(exported.models)
        answer = server.infer(images[:2], parameters={"allow_partial": True}).json()
        used = tuple(answer["parameters"]["members_used"].split(","))
        probabilities = np.reshape(answer["outputs"][0]["data"], (2, 10))
        np.testing.assert_allclose(probabilities, exported.average(images[:2], used), atol=1e-6)
        partial = partial or len(used) == 2
        return refused and partial

    wait_until(seen, "an answer of two members, and a refusal")
    server.wait_until_ready()
    assert server.infer(images[:2]).json()["parameters"]["members_used"] == ",".join(exported.models)
    failures = sum(server.metric(f'ensembleflow_member_failures_total{{model="{model}"}}') for model in exported.models)
    assert not failures < 1


def test_a_request_that_takes_longer_than_its_client_waits_is_answered_503(server, images):
    with server.stopped_workers():
        answer = server.infer(images[:1], parameters={"timeout": 200_000})
        assert answer.status_code == 503
        assert "too late" in answer.json()["error"]


# Bad clients


def test_a_client_that_goes_is_dropped_from_the_queue_and_harms_nobody(small_server, exported, images):
    with ThreadPoolExecutor(1) as threads, small_server.stopped_workers():
        first = threads.submit(small_server.infer, images[:1])
        wait_until(lambda: small_server.metric("ensembleflow_requests_in_flight") >= 2, "the first one is at work")
        with small_server.connect() as gone:
            gone.sendall(request_bytes(small_server, images[1:2], f"Authorization: Bearer {TOKEN}"))
            wait_until(lambda: small_server.metric("ensembleflow_queued_images") == 1, "the second one waits")
        wait_until(lambda: small_server.metric("ensembleflow_queued_images") == 0, "the second one is dropped")
    probabilities = np.reshape(first.result().json()["outputs"][0]["data"], (1, 10))
    np.testing.assert_allclose(probabilities, exported.answers(exported.models[0], images[:1]), atol=1e-6)
    wait_until(lambda: any(line.get("status") == 499 for line in small_server.log_lines()), "it is in the log")


def test_a_full_queue_refuses_and_says_when_to_try_again(small_server, images):
    with ThreadPoolExecutor(2) as threads, small_server.stopped_workers():
        waiting = [threads.submit(small_server.infer, images[:1])]
        wait_until(lambda: small_server.metric("ensembleflow_requests_in_flight") >= 2, "the first one is at work")
        waiting.append(threads.submit(small_server.infer, images[:MAX_IMAGES]))
        wait_until(lambda: small_server.metric("ensembleflow_queued_images") == MAX_IMAGES, "the second one waits")
        refused = small_server.infer(images[:1])
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "too many images wait" in refused.json()["error"]
    assert [each.result().status_code for each in waiting] == [200, 200]


def test_more_images_than_a_request_may_hold_are_refused(small_server, images):
    answer = small_server.infer(images[: MAX_IMAGES + 1])
    assert answer.status_code == 400
    assert f"n from 1 to {MAX_IMAGES}" in answer.json()["error"]


def test_a_body_over_the_limit_is_refused_before_it_is_sent(small_server):
    head = f"POST {INFER} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {2**40}\r\n\r\n"
    with small_server.connect() as connection:
        connection.sendall(head.encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"expected: at most 1048576" in answer


def test_a_body_over_the_limit_of_unknown_length_is_refused_while_it_comes(small_server):
    def endless() -> Iterator[bytes]:
        for _ in range(3):
            yield b" " * 2**19

    answer = small_server.client.post(INFER, content=endless())
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v2 HTTP/1.1\r\nHost:",
        f"POST {INFER} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 500\r\n\r\n{{".encode(),
        b"GET /v2/health/live HTTP/1.1\r\nContent-Length: 500\r\n\r\nx",
    ],
    ids=["nothing", "half-a-head", "half-a-body", "half-a-body-nobody-wants"],
)
def test_a_client_that_sends_too_slowly_is_dismissed(small_server, sent):
    with small_server.connect() as connection:
        connection.sendall(sent)
        answer = read_all(connection)
    statuses = re.findall(rb"HTTP/1.1 (\d+)", answer)
    expected = {b"": [], b"GET /v2 HTTP/1.1\r\nHost:": [b"408"]}
    assert statuses == expected.get(sent, [b"408"] if b"POST" in sent else [b"200"])
    assert small_server.client.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 100_000, b"431"),
        (b"GET /" + b"a" * 1_000_000, b"431"),
    ],
    ids=["tls", "version", "negative-length", "two-lengths", "many-headers", "long-path"],
)
def test_what_is_no_http_is_refused(small_server, sent, status):
    with small_server.connect() as connection:
        with suppress(OSError):  # it may be refused before all of it is sent
            connection.sendall(sent)
        answer = read_all(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 " + status)
    if len(sent) < 1000:
        assert b'{"error":' in answer
    assert small_server.client.get("/v2/health/live").status_code == 200


def test_a_truncated_body_is_dropped_silently(small_server, images):
    with small_server.connect() as connection:
        connection.sendall(request_bytes(small_server, images[:1], f"Authorization: Bearer {TOKEN}")[:-20])
    wait_until(lambda: small_server.metric("ensembleflow_requests_in_flight") == 1, "only the metrics are asked for")
    assert small_server.infer(images[:1]).status_code == 200


def test_pipelined_requests_are_answered_in_order(server):
    with server.connect() as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\nGET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert re.findall(rb"HTTP/1.1 (\d+)", read_all(connection)) == [b"200", b"404"]


def test_a_thousand_open_connections_leave_it_answering(server, exported, images):
    connections = [server.connect() for _ in range(1000)]
    try:
        wait_until(lambda: server.metric("ensembleflow_connections") > 900, "they are open")
        probabilities = np.reshape(server.infer(images[:1]).json()["outputs"][0]["data"], (1, 10))
        np.testing.assert_allclose(probabilities, exported.average(images[:1]), atol=1e-6)
        connections[500].sendall(b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b'{"live":true}' in read_all(connections[500])
    finally:
        for connection in connections:
            connection.close()


def test_connections_over_the_limit_are_told_so(small_server):
    connections = [small_server.connect() for _ in range(60)]
    try:
        with small_server.connect() as surplus:
            surplus.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
            answer = read_all(surplus)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"too many connections" in answer
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: small_server.metric("ensembleflow_connections") < 10, "they are closed")


# Tokens


def test_without_the_token_only_health_and_pages_are_answered(small_server, images):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        with httpx.Client(base_url=small_server.url, headers=headers) as client:
            for path in ("/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json"):
                assert client.get(path).status_code == 200
            for answer in (
                client.get("/v2"),
                client.get("/metrics"),
                client.post(INFER, json=infer_json(images[:1])),
                client.post("/classify", content=png(images[0, :, :, 0])),
                client.get("/nowhere"),
            ):
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert "token" in answer.json()["error"]
    assert small_server.infer(images[:1]).status_code == 200
    assert TOKEN not in small_server.log.read_text()


# Metrics, log, pages


def test_what_was_asked_is_counted(server, images):
    route = "/v2/models/{name}/infer"
    requests, answered = f'ensembleflow_requests_total{{code="200",route="{route}"}}', "ensembleflow_images_total"
    server.infer(images[:1])
    before = server.metric(requests), server.metric(answered)
    for _ in range(3):
        server.infer(images[:5])
    assert (server.metric(requests), server.metric(answered)) == (before[0] + 3, before[1] + 15)
    assert server.metric(f'ensembleflow_request_seconds_count{{route="{route}"}}') >= 4
    assert server.metric("ensembleflow_batch_images_count") >= 4
    assert server.metric('ensembleflow_member_seconds_count{model="trial-00001"}') >= 4
    assert server.metric('ensembleflow_workers{state="ready"}') == 3
    assert server.metric('ensembleflow_worker_peak_memory_bytes{device="cpu0",model="trial-00000"}') > 1e7
    assert server.metric("ensembleflow_ready") == 1
    assert server.metric("ensembleflow_requests_in_flight") == 1


def test_each_request_is_a_line_of_the_log_under_its_id(server, images):
    headers = {"X-Request-Id": "my-request.7"}
    answer = server.client.post(INFER, json=infer_json(images[:4]), headers=headers)
    assert answer.headers["x-request-id"] == "my-request.7"
    server.client.post(INFER, content=b"{", headers={"X-Request-Id": 'bad "id"'})

    def lines() -> list[dict]:
        return [line for line in server.log_lines() if line["event"] == "request"]

    wait_until(lambda: lines()[-1]["status"] == 400, "the last request is in the log")
    good, bad = lines()[-2:]
    assert (good["request_id"], good["status"], good["images"], good["path"]) == ("my-request.7", 200, 4, INFER)
    assert good["milliseconds"] > 0 and good["level"] == "info"
    assert re.fullmatch("[0-9a-f]{32}", bad["request_id"])


def test_the_openapi_document_and_its_page_tell_every_operation(server):
    document = server.client.get("/openapi.json").json()
    page = server.client.get("/docs").text
    assert set(document["paths"]) >= {"/classify", "/metrics", "/v2", "/v2/models/{name}/versions/{version}/infer"}
    for path in document["paths"]:
        assert path in page
    assert not re.findall(r"(?:src|href)=.https?:", page)


# Start and stop


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
    assert "the allocation does not suit the ensemble" in finished.stderr and "trial-00007@cpu0/8" in finished.stderr


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
    finished = run_serve(bundle, "--port", 0)
    assert finished.returncode == 1
    assert "the bundle answers differently" in finished.stderr and "1 of 200 images differ" in finished.stderr
    assert "ready:" not in finished.stdout
