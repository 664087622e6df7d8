"""The server and clients that go, send too much or too slowly, or have no token."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import numpy as np
import pytest

from support.server_process import (
    INFER,
    MAX_IMAGES,
    TOKEN,
    infer_json,
    png,
    read_all,
    request_bytes,
    wait_until,
)


@pytest.mark.parametrize("n_spaces", [0, 100_000])
def test_a_client_that_goes_is_dropped_from_the_queue_and_harms_nobody(small_server, exported, images, n_spaces):
    with ThreadPoolExecutor(1) as threads, small_server.stopped_workers():
        first = threads.submit(small_server.infer, images[:1])
        wait_until(lambda: small_server.metric("ensembleflow_requests_in_flight") >= 2, "the first one is at work")
        with small_server.connect() as gone:
            request = request_bytes(small_server, images[1:2], f"Authorization: Bearer {TOKEN}", n_spaces=n_spaces)
            end_of_head = request.index(b"\r\n\r\n") + 4
            gone.sendall(request[:end_of_head])
            wait_until(lambda: small_server.metric("ensembleflow_requests_in_flight") >= 3, "its head is read")
            gone.sendall(request[end_of_head:])
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
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
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
        f"POST {INFER} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 500\r\n\r\n{{".encode(),
        b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nx",
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
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
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
        connection.sendall(
            b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        assert re.findall(rb"HTTP/1.1 (\d+)", read_all(connection)) == [b"200", b"404"]


def test_a_thousand_open_connections_leave_it_answering(server, exported, images):
    connections = [server.connect() for _ in range(1000)]
    try:
        wait_until(lambda: server.metric("ensembleflow_connections") > 900, "they are open")
        probabilities = np.reshape(server.infer(images[:1]).json()["outputs"][0]["data"], (1, 10))
        np.testing.assert_allclose(probabilities, exported.average(images[:1]), atol=1e-6)
        connections[500].sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b'{"live":true}' in read_all(connections[500])
    finally:
        for connection in connections:
            connection.close()


def test_connections_over_the_limit_are_told_so(small_server):
    connections = [small_server.connect() for _ in range(60)]
    try:
        with small_server.connect() as surplus:
            surplus.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = read_all(surplus)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"too many connections" in answer
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: small_server.metric("ensembleflow_connections") < 10, "they are closed")


def test_a_client_that_reads_no_answer_is_cut(small_server):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(small_server.address)
        connection.settimeout(0.5)
        with suppress(TimeoutError):  # the server reads no more than it answers
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 20_000)

        def given_up() -> bool:
            lines = [line for line in small_server.log_lines() if line.get("path") == "/openapi.json"]
            return any(line["milliseconds"] > 500 for line in lines)

        wait_until(given_up, "an answer that is not read ends")
        wait_until(lambda: small_server.metric("ensembleflow_requests_in_flight") == 1, "nothing else is at work")


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
