"""Every method of Triton's HTTP client, HEAD wherever there is GET, and headers in any case."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from support.server_process import INFER, MODEL, infer_json, png

NO_MODELS_AT_RUN_TIME = "models are neither loaded nor unloaded"
NO_TRACING, NO_LOG_SETTINGS, NO_SHARED_MEMORY = "no tracing", "the log has no settings", "no shared memory"
NO_REGION = "there is no region 'r'"

Client = triton.InferenceServerClient


@pytest.fixture(scope="module")
def client(running_server) -> Iterator[Client]:
    with Client(running_server.url.removeprefix("http://")) as client:
        yield client


def is_served(client: Client) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "4x")
    assert not client.is_model_ready("other") and not client.is_model_ready(MODEL, "8x")


def is_described(client: Client) -> None:
    assert client.get_server_metadata()["name"] == "ensembleflow"
    assert client.get_model_metadata(MODEL) == client.get_model_metadata(MODEL, "4x")


def is_configured(client: Client) -> None:
    config = client.get_model_config(MODEL)
    assert config == client.get_model_config(MODEL, "4x")
    assert (config["name"], config["platform"], config["max_batch_size"]) == (MODEL, "ensembleflow", 1024)
    images = {"name": "images", "data_type": "TYPE_UINT8", "dims": [8, 8, 1], "format": "FORMAT_NHWC"}
    assert config["input"] == [images]
    metadata = client.get_model_metadata(MODEL)
    for configured, described in zip(config["output"], metadata["outputs"], strict=True):
        assert configured["name"] == described["name"]
        assert configured["data_type"] == f"TYPE_{described['datatype']}"
        # Metadata have the images' axis before them.
        assert [-1, *configured.get("reshape", {"shape": configured["dims"]})["shape"]] == described["shape"]


def is_listed(client: Client) -> None:
    entry = {"name": MODEL, "version": "4x", "state": "READY", "reason": ""}
    assert client.get_model_repository_index() == [entry]


def tensors(n_images: int) -> list[triton.InferInput]:
    tensor = triton.InferInput("images", [n_images, 8, 8, 1], "UINT8")
    tensor.set_data_from_numpy(np.zeros((n_images, 8, 8, 1), np.uint8))
    return [tensor]


def statistics(client: Client, *names: str) -> dict[str, Any]:
    (found,) = client.get_inference_statistics(*names)["model_stats"]
    return found


def is_counted(client: Client) -> None:
    before = statistics(client)
    client.infer(MODEL, tensors(3))
    with pytest.raises(triton.InferenceServerException):
        client.infer("other", tensors(3))
    after = statistics(client, MODEL, "4x")
    assert (after["name"], after["version"]) == (MODEL, "4x")
    assert after["inference_count"] == before["inference_count"] + 3
    assert after["execution_count"] > before["execution_count"]
    assert 0 <= time.time() * 1000 - after["last_inference"] < 600_000
    for kind in ("success", "fail", "compute_infer"):
        old, new = (found["inference_stats"][kind] for found in (before, after))
        assert new["count"] == old["count"] + 1 and new["ns"] > old["ns"]
    assert after == statistics(client, MODEL)


def is_answered(client: Client) -> None:
    for result in (client.infer(MODEL, tensors(2)), client.async_infer(MODEL, tensors(2)).get_result()):
        assert result.as_numpy("probabilities").shape == (2, 10)


def is_answered_by_hand(client: Client) -> None:
    body, json_length = Client.generate_request_body(tensors(2))
    headers = {} if json_length is None else {"Inference-Header-Content-Length": str(json_length)}
    response = client._post(INFER.removeprefix("/"), body, headers, None)
    length = response.get("inference-header-content-length")
    result = Client.parse_response_body(response.read(), header_length=None if length is None else int(length))
    assert result.as_numpy("probabilities").shape == (2, 10)


def refuses(ask: Callable[[Client], object], why: str, status: str = "400") -> Callable[[Client], None]:
    def check(client: Client) -> None:
        with pytest.raises(triton.InferenceServerException, match=why) as caught:
            ask(client)
        assert caught.value.status() == status

    return check


def both(first: Callable[[Client], None], second: Callable[[Client], None]) -> Callable[[Client], None]:
    def check(client: Client) -> None:
        first(client)
        second(client)

    return check


def nothing(status: Callable[..., object], unregister: Callable[..., object]) -> Callable[[Client], None]:
    def check(client: Client) -> None:
        assert status(client) == []
        refuses(lambda client: status(client, "r"), NO_REGION, "404")(client)
        unregister(client)
        unregister(client, "r")

    return check


no_system_memory = nothing(Client.get_system_shared_memory_status, Client.unregister_system_shared_memory)
no_cuda_memory = nothing(Client.get_cuda_shared_memory_status, Client.unregister_cuda_shared_memory)

METHODS: dict[str, Callable[[Client], None]] = {
    **dict.fromkeys(("is_server_live", "is_server_ready", "is_model_ready"), is_served),
    **dict.fromkeys(("get_server_metadata", "get_model_metadata"), is_described),
    "get_model_config": is_configured,
    "get_model_repository_index": is_listed,
    "get_inference_statistics": is_counted,
    **dict.fromkeys(("infer", "async_infer"), is_answered),
    **dict.fromkeys(("generate_request_body", "parse_response_body"), is_answered_by_hand),
    "load_model": both(
        refuses(lambda client: client.load_model(MODEL), NO_MODELS_AT_RUN_TIME),
        refuses(lambda client: client.load_model("other", config="{}"), NO_MODELS_AT_RUN_TIME),
    ),
    "unload_model": refuses(lambda client: client.unload_model(MODEL), NO_MODELS_AT_RUN_TIME),
    "get_trace_settings": both(
        refuses(lambda client: client.get_trace_settings(), NO_TRACING),
        refuses(lambda client: client.get_trace_settings(MODEL), NO_TRACING),
    ),
    "update_trace_settings": both(
        refuses(lambda client: client.update_trace_settings(settings={"trace_rate": "1"}), NO_TRACING),
        refuses(lambda client: client.update_trace_settings(MODEL), NO_TRACING),
    ),
    "get_log_settings": refuses(lambda client: client.get_log_settings(), NO_LOG_SETTINGS),
    "update_log_settings": refuses(lambda client: client.update_log_settings({"log_info": True}), NO_LOG_SETTINGS),
    **dict.fromkeys(("get_system_shared_memory_status", "unregister_system_shared_memory"), no_system_memory),
    **dict.fromkeys(("get_cuda_shared_memory_status", "unregister_cuda_shared_memory"), no_cuda_memory),
    "register_system_shared_memory": refuses(
        lambda client: client.register_system_shared_memory("r", "/r", 8), NO_SHARED_MEMORY
    ),
    "register_cuda_shared_memory": refuses(
        lambda client: client.register_cuda_shared_memory("r", b"handle", 0, 8), NO_SHARED_MEMORY
    ),
}
OF_THE_CONNECTION = {"close", "register_plugin", "unregister_plugin", "plugin"}


def test_every_method_of_tritons_client_is_tried():
    public = {name for name, _ in inspect.getmembers(Client, callable) if not name.startswith("_")}
    assert public - OF_THE_CONNECTION == set(METHODS)


@pytest.mark.parametrize("check", METHODS.values(), ids=METHODS)
def test_tritons_client_is_answered_or_told_why_not(server, client, check):
    check(client)


def test_an_input_in_shared_memory_is_refused(server, client):
    (tensor,) = tensors(1)
    tensor.set_shared_memory("r", 64)
    refuses(lambda client: client.infer(MODEL, [tensor]), "a tensor has no data")(client)


def test_the_index_lists_what_is_ready(server):
    def index(content: bytes) -> tuple[int, Any]:
        answer = server.client.post("/v2/repository/index", content=content)
        return answer.status_code, answer.json()

    for content in (b"", b"{}", b'{"ready": true}', b'{"ready": false}', b'{"other": 1}'):
        status, (entry,) = index(content)
        assert (status, entry["state"]) == (200, "READY")
    for content in (b"{", b"[]", b"1", b'{"ready": "x"}'):
        status, answer = index(content)
        assert status == 400 and list(answer) == ["error"]


def test_kserve_lists_the_model(server):
    assert server.client.get("/v2/models").json() == {"models": [MODEL]}


def test_head_is_answered_as_get_is_without_a_body(server):
    paths = [
        path.format(name=MODEL, version="4x")
        for path, operations in server.client.get("/openapi.json").json()["paths"].items()
        if "get" in operations
    ]
    for path in [*paths, "/", "/docs", "/openapi.json", "/v2/models/other", "/nowhere", INFER]:
        head, get = server.client.head(path), server.client.get(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers["content-type"] == get.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == str(len(get.content))
    assert len(paths) > 10


def test_head_is_counted_as_its_route(server):
    sample = 'ensembleflow_requests_total{code="200",route="/v2/health/live"}'
    before = server.metric(sample)
    server.client.head("/v2/health/live")
    assert server.metric(sample) == before + 1


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("POST", "/v2/health/live", "GET, HEAD"), ("GET", INFER, "POST")]
)
def test_another_method_is_told_which_are_allowed(server, method, path, allowed):
    answer = server.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("value", ["identity", "Identity", "IDENTITY", "identity, Identity", ""])
def test_a_body_that_is_not_encoded_is_read_however_that_is_said(server, images, value):
    headers = {"Content-Encoding": value, "Content-Type": "Application/JSON"}
    assert server.client.post(INFER, json=infer_json(images[:1]), headers=headers).status_code == 200
    assert server.client.post("/classify", content=png(images[0, :, :, 0]), headers=headers).status_code == 200


@pytest.mark.parametrize("value", ["gzip", "GZIP", "identity, gzip", "br"])
def test_a_body_that_is_encoded_is_refused(server, images, value):
    for headers in ({"Content-Encoding": value}, [("Content-Encoding", "identity"), ("Content-Encoding", value)]):
        answer = server.client.post(INFER, content=json.dumps(infer_json(images[:1])), headers=headers)
        assert answer.status_code == 415


def test_a_form_is_refused_in_any_case(server):
    headers = {"Content-Type": "Multipart/Form-Data; boundary=a"}
    assert server.client.post("/classify", content=b"--a--", headers=headers).status_code == 415


def test_two_lengths_of_the_json_are_refused(server, images):
    body = json.dumps(infer_json(images[:1]))
    headers = [("Inference-Header-Content-Length", length) for length in (str(len(body)), "5")]
    answer = server.client.post(INFER, content=body, headers=headers)
    assert answer.status_code == 400 and "twice" in answer.json()["error"]
    assert server.client.post(INFER, content=body, headers=headers[:1] * 2).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_tokens_scheme_is_read_in_any_case(small_server, scheme):
    headers = {"Authorization": f"{scheme} {small_server.client.headers['authorization'].split()[1]}"}
    assert small_server.client.get("/v2", headers=headers).status_code == 200
