"""The server, as a real process, asked by a client that others wrote."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.http as triton

from support.server_process import (
    INFER,
    MODEL,
    infer_json,
    wait_until,
)


@pytest.fixture(scope="module")
def client(running_server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(running_server.url.removeprefix("http://"), concurrency=8) as client:
        yield client


def triton_input(images: np.ndarray, datatype: str = "UINT8", binary: bool = True) -> list[triton.InferInput]:
    tensor = triton.InferInput("images", images.shape, datatype)
    tensor.set_data_from_numpy(images, binary_data=binary)
    return [tensor]


def test_triton_finds_the_server_live_and_the_model_ready(server, client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "4x")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_configuration", "statistics"]


def test_triton_reads_what_the_model_is(server, client, exported):
    metadata = client.get_model_metadata(MODEL, "4x")
    assert (metadata["name"], metadata["versions"]) == (MODEL, ["4x"])
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    shapes = {output["name"]: output["shape"] for output in metadata["outputs"]}
    of_images = {name: [-1] for name in ("disagreement", "confidence", "stage")}
    assert shapes == {"probabilities": [-1, 10], "member_probabilities": [-1, -1, 10], **of_images}
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
        requests = [line for line in server.log_lines() if line["event"] == "request"]
        ids = [line["request_id"] for line in requests]
        return requests[ids.index("my-request.7") :] if "my-request.7" in ids else []

    wait_until(lambda: [line["status"] for line in lines()] == [200, 400], "both requests are in the log")
    good, bad = lines()
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
