"""Requests and answers of the Open Inference Protocol, as bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensembleflow.inference import Answer
from ensembleflow.serving.protocol import (
    INPUT_DATATYPES,
    InferenceRequest,
    ProtocolError,
    RequestedOutput,
    build_response,
    disagreement,
    parse_request,
)
from ensembleflow.serving.signature import OUTPUTS, Signature

IMAGE_SHAPE = (2, 3, 1)
SIGNATURE = Signature("study", "4x", IMAGE_SHAPE, max_images=5)
FLOATS = Signature("study", "4x", (2, 3), max_images=5, image_dtype="float32")

images_of_requests = st.integers(1, 5).flatmap(lambda n: arrays(np.uint8, (n, *IMAGE_SHAPE)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def encode(images: np.ndarray, datatype: str = "UINT8", binary: bool = True, **content) -> tuple[bytes, str | None]:
    """A request's body and header."""
    numbers = images.astype(INPUT_DATATYPES[datatype])
    tensor = {"name": "images", "datatype": datatype, "shape": list(images.shape)}
    if not binary:
        return json.dumps({"inputs": [{**tensor, "data": numbers.tolist()}], **content}).encode(), None
    tensor["parameters"] = {"binary_data_size": numbers.nbytes}
    text = json.dumps({"inputs": [tensor], **content}).encode()
    return text + numbers.tobytes(), str(len(text))


def request_json(**changes) -> bytes:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 3, 1], "data": [1, 2, 3, 4, 5, 6]}
    return json.dumps({"inputs": [{**tensor, **changes}]}).encode()


def refusal(body: bytes, header: str | None = None) -> str:
    with pytest.raises(ProtocolError) as caught:
        parse_request(body, header, SIGNATURE)
    return str(caught.value)


def decode(body: bytes, json_length: int | None) -> tuple[dict, dict[str, np.ndarray]]:
    """An answer's JSON and its tensors."""
    content = json.loads(body[:json_length])
    start = len(body) if json_length is None else json_length
    tensors = {}
    for output in content["outputs"]:
        dtype = {"FP32": "<f4", "INT32": "<i4"}[output["datatype"]]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.array(output["data"], dtype)
        else:
            array = np.frombuffer(body[start : start + size], dtype)
            start += size
        tensors[output["name"]] = array.reshape(output["shape"])
    assert start == len(body)
    return content, tensors


@given(images_of_requests, st.sampled_from(list(INPUT_DATATYPES)), st.booleans())
def test_images_arrive_as_they_were_sent_in_every_datatype_as_json_and_as_bytes(images, datatype, binary):
    request = parse_request(*encode(images, datatype, binary), SIGNATURE)
    assert request.images.dtype == np.uint8
    np.testing.assert_array_equal(request.images, images)
    assert request.outputs == (RequestedOutput("probabilities", False),)
    assert not request.with_members


@given(images_of_requests)
def test_bytes_of_images_are_not_copied(images):
    body, header = encode(images)
    assert np.shares_memory(parse_request(body, header, SIGNATURE).images, np.frombuffer(body, np.uint8))


@given(st.permutations(range(6)), st.booleans())
def test_json_data_may_be_flat_or_nested(numbers, nested):
    data = np.reshape(numbers, (1, 2, 3, 1)).tolist() if nested else list(numbers)
    assert parse_request(request_json(data=data), None, SIGNATURE).images.reshape(-1).tolist() == list(numbers)


@given(
    st.text(max_size=10),
    st.booleans(),
    st.integers(0, 10**9),
    st.lists(st.tuples(st.sampled_from(OUTPUTS), st.sampled_from([None, True, False])), unique_by=lambda each: each[0]),
    st.booleans(),
)
def test_id_parameters_and_outputs_are_read(identifier, allow_partial, timeout, outputs, binary_by_default):
    body, header = encode(
        np.zeros((1, *IMAGE_SHAPE), np.uint8),
        id=identifier,
        parameters={"allow_partial": allow_partial, "timeout": timeout, "binary_data_output": binary_by_default},
        outputs=[
            {"name": name, **({} if binary is None else {"parameters": {"binary_data": binary}})}
            for name, binary in outputs
        ],
    )
    request = parse_request(body, header, SIGNATURE)
    assert (request.id, request.allow_partial) == (identifier, allow_partial)
    assert request.timeout_seconds == (timeout / 1e6 if timeout else None)
    expected = [(name, binary_by_default if binary is None else binary) for name, binary in outputs]
    assert [(each.name, each.binary) for each in request.outputs] == (
        expected or [("probabilities", binary_by_default)]
    )


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.data())
def test_answers_are_the_same_as_json_and_as_bytes(n_images, n_members, n_classes, data):
    shape = (n_members, n_images, n_classes)
    by_member = data.draw(arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    members = tuple(f"trial-{place:05d}" for place in range(n_members))
    answer = Answer(by_member.mean(axis=0), members, by_member)
    outputs = tuple(RequestedOutput(name, data.draw(st.booleans())) for name in data.draw(st.permutations(OUTPUTS)))
    request = InferenceRequest(np.zeros((n_images, *IMAGE_SHAPE), np.uint8), outputs, id="7")

    content, tensors = decode(*build_response(request, answer, SIGNATURE))
    assert (content["model_name"], content["model_version"], content["id"]) == ("study", "4x", "7")
    assert content["parameters"] == {"members_used": ",".join(members)}
    assert list(tensors) == [output.name for output in outputs]
    np.testing.assert_array_equal(tensors["probabilities"], answer.probabilities)
    np.testing.assert_array_equal(tensors["member_probabilities"], by_member.transpose(1, 0, 2))
    for image in range(n_images):
        others = sum(row.argmax() != answer.probabilities[image].argmax() for row in by_member[:, image])
        assert tensors["disagreement"][image] == pytest.approx(others / n_members)
        assert disagreement(answer)[image] == tensors["disagreement"][image]
    np.testing.assert_array_equal(tensors["confidence"], answer.probabilities.max(axis=1))
    assert tensors["stage"].tolist() == [n_members] * n_images


def test_an_answer_without_an_id_has_none():
    answer = Answer(np.zeros((1, 2), np.float32), ("a",))
    request = InferenceRequest(np.zeros((1, *IMAGE_SHAPE), np.uint8), (RequestedOutput("probabilities", False),))
    assert "id" not in decode(*build_response(request, answer, SIGNATURE))[0]


@given(st.binary(max_size=60), st.none() | st.text(max_size=6) | st.integers(-3, 70).map(str))
def test_any_bytes_are_read_or_refused(body, header):
    with pytest.raises(ProtocolError):
        parse_request(body, header, SIGNATURE)


@given(
    json_values,
    st.sampled_from(["", "id", "parameters", "inputs", "outputs", "name", "datatype", "shape", "data", "tensor"]),
    st.booleans(),
)
def test_any_value_anywhere_is_read_or_refused(value, place, binary):
    body, header = encode(np.zeros((1, *IMAGE_SHAPE), np.uint8), binary=binary, outputs=[{"name": "disagreement"}])
    length = len(body) if header is None else int(header)
    content = json.loads(body[:length])
    if place == "":
        content = value
    elif place == "tensor":
        content["inputs"][0]["parameters"] = value
    elif place == "outputs":
        content["outputs"] = [value, {"name": "disagreement", "parameters": value}]
    else:
        (content if place in content or place in ("id", "parameters") else content["inputs"][0])[place] = value
    text = json.dumps(content).encode()
    try:
        request = parse_request(text + body[length:], None if header is None else str(len(text)), SIGNATURE)
    except ProtocolError:
        return
    assert request.images.dtype == np.uint8 and request.images.shape[1:] == IMAGE_SHAPE


@given(images_of_requests, st.data())
def test_a_truncated_body_is_refused(images, data):
    body, header = encode(images)
    with pytest.raises(ProtocolError):
        parse_request(body[: data.draw(st.integers(0, len(body) - 1))], header, SIGNATURE)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"name": "image"}, ["a request has other tensors", '["image"]', "one tensor called images"]),
        ({"datatype": "FP64"}, ["images", "another datatype", "FP64", "UINT8, INT32, INT64, FP32"]),
        ({"shape": [1, 3, 2, 1]}, ["images", "another shape", "[1,3,2,1]", "[n, 2, 3, 1] with n from 1 to 5"]),
        ({"shape": [6, 2, 3, 1]}, ["another shape", "[6,2,3,1]", "from 1 to 5"]),
        ({"shape": [0, 2, 3, 1], "data": []}, ["another shape", "[0,2,3,1]"]),
        ({"shape": [True, 2, 3, 1]}, ["another shape"]),
        ({"data": [1, 2, 3, 4, 5]}, ["images", "another length", "5", "6"]),
        ({"data": [1, 2, 3, 4, 5, 256]}, ["images", "out of range", "1 to 256", "whole numbers from 0 to 255"]),
        ({"data": [-1, 2, 3, 4, 5, 6]}, ["out of range", "-1 to 6"]),
        ({"data": [1, 2, 3, 4, 5, 2**63]}, ["out of range"]),
        ({"data": [1, 2, 3, 4, 5, 0.5]}, ["not whole", "0.5"]),
        ({"data": ["1", 2, 3, 4, 5, 6]}, ["not numbers", "str"]),
        ({"data": [[1, 2, 3], 4, 5, 6]}, ["nested unevenly"]),
        ({"data": None}, ["no data"]),
        ({"parameters": {"binary_data_size": 6}, "data": None}, ["Inference-Header-Content-Length", "missing"]),
    ],
)
def test_a_message_names_what_was_found_and_what_is_expected(changes, parts):
    message = refusal(request_json(**changes))
    for part in parts:
        assert part in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 255.5, 256.0])
def test_floating_point_images_hold_whole_numbers_only(value):
    images = np.full((1, *IMAGE_SHAPE), 7.0, np.float32)
    images[0, 0, 0, 0] = value
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 2, 3, 1], "parameters": {"binary_data_size": 24}}
    text = json.dumps({"inputs": [tensor]}).encode()
    assert "whole numbers from 0 to 255" in refusal(text + images.tobytes(), str(len(text)))


def test_a_long_value_is_not_repeated_whole():
    assert len(refusal(request_json(shape=list(range(10_000))))) < 400


def test_an_output_is_known_and_asked_for_once():
    tensor = json.loads(request_json())["inputs"]
    for outputs, part in (
        ([{"name": "logits"}], "probabilities, member_probabilities, disagreement"),
        ([{"name": "disagreement"}] * 2, "twice"),
        ([{"name": "probabilities", "parameters": {"classification": 3}}], "/classify"),
    ):
        assert part in refusal(json.dumps({"inputs": tensor, "outputs": outputs}).encode())


def test_deeply_nested_json_is_refused():
    assert "not JSON" in refusal(b"[" * 100_000)


@given(
    st.integers(1, 5).flatmap(
        lambda n: arrays(np.float32, (n, 2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
    ),
    st.booleans(),
)
def test_float_values_arrive_as_they_were_sent_as_json_and_as_bytes(values, binary):
    body, header = encode(values, "FP32", binary)
    images = parse_request(body, header, FLOATS).images
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, values)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_float_values_that_are_no_numbers_are_refused(value):
    body, header = encode(np.full((1, 2, 3), value, np.float32), "FP32")
    with pytest.raises(ProtocolError, match="numbers out of range"):
        parse_request(body, header, FLOATS)


@pytest.mark.parametrize("datatype", ["UINT8", "INT32", "INT64"])
def test_float_values_are_sent_as_fp32_alone(datatype):
    body, header = encode(np.ones((1, 2, 3)), datatype)
    with pytest.raises(ProtocolError) as caught:
        parse_request(body, header, FLOATS)
    assert caught.value.expected == "FP32"
