"""The Open Inference Protocol v2: inference requests and answers as JSON, with tensors in it or as bytes behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ensembleflow.errors import EnsembleflowError
from ensembleflow.inference import Answer
from ensembleflow.serving.signature import (
    CONFIDENCE,
    DISAGREEMENT,
    INPUT,
    MEMBER_PROBABILITIES,
    OUTPUT_DATATYPES,
    OUTPUTS,
    PROBABILITIES,
    STAGE,
    Signature,
)

__all__ = [
    "HEADER_LENGTH",
    "INPUT_DATATYPES",
    "InferenceRequest",
    "ProtocolError",
    "RequestedOutput",
    "build_response",
    "disagreement",
    "parse_request",
]

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header with the length of the JSON in bytes, where tensors follow it as bytes."""

INPUT_DATATYPES = {"UINT8": "<u1", "INT32": "<i4", "INT64": "<i8", "FP32": "<f4"}
"""What whole numbers from 0 to 255 may be sent as; float values are sent as FP32 alone."""

_MAX_SHOWN_CHARACTERS = 80
_FINITE = "numbers from -3.4e38 to 3.4e38"


class ProtocolError(EnsembleflowError):
    """A request does not follow the protocol, or asks for what the model does not have."""


@dataclass(frozen=True)
class RequestedOutput:
    """An output to return, as bytes or as JSON."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferenceRequest:
    """What a client asks.

    Attributes:
        images: (images, *image_shape) of the model's type; a view of the request's bytes where they allow it.
        outputs: what to return.
        id: to be repeated in the answer.
        allow_partial: whether an answer may lack members.
        timeout_seconds: how long the client waits.
    """

    images: npt.NDArray[Any]
    outputs: tuple[RequestedOutput, ...]
    id: str | None = None
    allow_partial: bool = False
    timeout_seconds: float | None = None

    @property
    def with_members(self) -> bool:
        """Whether an output needs each member's probabilities."""
        return any(output.name in (MEMBER_PROBABILITIES, DISAGREEMENT) for output in self.outputs)


def parse_request(body: bytes, header_length: str | None, signature: Signature) -> InferenceRequest:
    """Read an inference request.

    Args:
        body: the HTTP request's body.
        header_length: the value of `Inference-Header-Content-Length`; None if there is none, and all is JSON.
        signature: the model.

    Raises:
        ProtocolError: it is malformed, or does not suit the model.

    Source: Open Inference Protocol, "Inference" of its HTTP/REST part, and Triton's "Binary Tensor Data Extension".
    """
    json_length = len(body) if header_length is None else _json_length(header_length, len(body))
    content = _read_json(memoryview(body)[:json_length])
    parameters = _parameters(content, "the request")
    binary_by_default = _boolean(parameters, "binary_data_output", "the request")
    tensor = _images_tensor(content, signature)
    images_shape = _images_shape(tensor, signature)
    size = _parameters(tensor, INPUT).get("binary_data_size")
    if size is None:
        _require_bytes(len(body) - json_length, 0, "bytes behind the JSON")
        numbers = _numbers_from_json(tensor, images_shape)
    elif header_length is None:
        raise ProtocolError(
            "a header is missing",
            where=HEADER_LENGTH,
            expected=f"the JSON's length in bytes, because tensor {INPUT} has binary_data_size",
        )
    else:
        numbers = _numbers_from_bytes(body, json_length, size, tensor, images_shape)
    images = (_as_pixels if signature.image_dtype == "uint8" else _as_float32)(numbers).reshape(images_shape)
    timeout = parameters.get("timeout")
    if timeout is not None and not (type(timeout) is int and timeout >= 0):
        raise _wrong("a parameter has a wrong value", "timeout", timeout, "microseconds, a whole number of 0 or more")
    identifier = content.get("id")
    if not isinstance(identifier, str | None):
        raise _wrong("a request's id has a wrong type", "id", identifier, "text")
    return InferenceRequest(
        images=images,
        outputs=_requested_outputs(content, binary_by_default),
        id=identifier,
        allow_partial=_boolean(parameters, "allow_partial", "the request"),
        timeout_seconds=timeout / 1e6 if timeout else None,  # 0 stands for no timeout
    )


def build_response(request: InferenceRequest, answer: Answer, signature: Signature) -> tuple[bytes, int | None]:
    """The body of the HTTP answer, and the length of its JSON in bytes if tensors follow it as bytes.

    Args:
        request: what was asked.
        answer: with each member's probabilities, if `request.with_members`.
        signature: the model.
    """
    tensors: list[npt.NDArray[Any]] = []
    outputs = []
    for requested in request.outputs:
        array = _output(requested.name, answer)
        datatype = OUTPUT_DATATYPES[requested.name]
        output: dict[str, Any] = {"name": requested.name, "datatype": datatype, "shape": list(array.shape)}
        if requested.binary:
            output["parameters"] = {"binary_data_size": array.nbytes}
            tensors.append(array)
        else:
            output["data"] = array.reshape(-1)  # NaN becomes null
        outputs.append(output)
    content = {
        "model_name": signature.model_name,
        "model_version": signature.model_version,
        **({} if request.id is None else {"id": request.id}),
        "parameters": {"members_used": ",".join(answer.members_used)},
        "outputs": outputs,
    }
    text = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tensors:
        return text, None
    return b"".join([text, *(_little_endian(tensor).data for tensor in tensors)]), len(text)


def _little_endian(tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)


def disagreement(answer: Answer) -> npt.NDArray[np.float32]:
    """Of the members that saw an image, the share whose most probable class is another than the ensemble's.

    Float32 (images,).
    """
    assert answer.member_probabilities is not None
    asked = ~np.isnan(answer.member_probabilities).any(axis=2)
    others = answer.member_probabilities.argmax(axis=2) != answer.probabilities.argmax(axis=1)
    return ((others & asked).sum(axis=0) / asked.sum(axis=0)).astype(np.float32)


def _output(name: str, answer: Answer) -> npt.NDArray[Any]:
    if name == PROBABILITIES:
        return np.ascontiguousarray(answer.probabilities)
    if name == CONFIDENCE:
        return answer.probabilities.max(axis=1)
    if name == STAGE:
        return answer.stage
    if name == DISAGREEMENT:
        return disagreement(answer)
    assert answer.member_probabilities is not None
    return np.ascontiguousarray(answer.member_probabilities.swapaxes(0, 1))


def _json_length(header: str, n_bytes: int) -> int:
    if not (header.isascii() and header.isdigit() and len(header) < 19 and int(header) <= n_bytes):
        raise _wrong("a header has a wrong value", HEADER_LENGTH, header, f"a whole number up to {n_bytes}, the body's")
    return int(header)


def _read_json(text: memoryview) -> dict[str, Any]:
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("a request is not JSON", found=error, expected="a JSON object") from None
    if not isinstance(content, dict):
        raise _wrong("a request is not a JSON object", None, content, "an object with inputs")
    return content


def _parameters(owner: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise _wrong("parameters have a wrong type", where, parameters, "an object")
    return parameters


def _boolean(parameters: dict[str, Any], name: str, where: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _wrong("a parameter has a wrong value", f"{where}: {name}", value, "true or false")
    return value


def _images_tensor(content: dict[str, Any], signature: Signature) -> dict[str, Any]:
    tensors = content.get("inputs")
    expected = f"one tensor called {INPUT}"
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise _wrong("a request has no list of tensors", "inputs", tensors, expected)
    names = [tensor.get("name") for tensor in tensors]
    if names != [INPUT]:
        raise _wrong("a request has other tensors", "inputs", names, expected)
    tensor: dict[str, Any] = tensors[0]
    datatype = tensor.get("datatype")
    known = [*INPUT_DATATYPES] if signature.image_dtype == "uint8" else [signature.datatype]
    if datatype not in known:
        expected = known[0] if len(known) == 1 else f"one of {', '.join(known)}"
        raise _wrong("a tensor has another datatype", INPUT, datatype, expected)
    return tensor


def _images_shape(tensor: dict[str, Any], signature: Signature) -> tuple[int, ...]:
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or any(type(length) is not int for length in shape)
        or shape[1:] != [*signature.image_shape]
        or not 1 <= shape[0] <= signature.max_images
    ):
        expected = f"[n, {', '.join(map(str, signature.image_shape))}] with n from 1 to {signature.max_images}"
        raise _wrong("a tensor has another shape", INPUT, shape, expected)
    return tuple(shape)


def _numbers_from_json(tensor: dict[str, Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    numbers = tensor.get("data")
    if not isinstance(numbers, list):
        raise _wrong("a tensor has no data", INPUT, numbers, "a list of numbers as data, or binary_data_size")
    for _ in range(len(shape) - 1):
        if numbers and isinstance(numbers[0], list):
            if not all(isinstance(part, list) for part in numbers):
                raise ProtocolError("a tensor's data are nested unevenly", where=INPUT)
            numbers = list(chain.from_iterable(numbers))
    # The types first: NumPy would make numbers of texts, and one long text would make it ask for all memory.
    kinds = set(map(type, numbers))
    if not kinds <= {int, float}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds - {int, float}))
        raise ProtocolError("a tensor's data are not numbers", where=INPUT, found=names, expected="whole numbers")
    n_expected = math.prod(shape)
    if len(numbers) != n_expected:
        raise ProtocolError("a tensor's data have another length", where=INPUT, found=len(numbers), expected=n_expected)
    if kinds == {int}:
        try:
            return np.frombuffer(bytes(numbers), np.uint8)
        except (ValueError, OverflowError):  # a number beyond pixels
            pass
    return np.array(numbers, np.float64)


def _numbers_from_bytes(
    body: bytes, start: int, size: Any, tensor: dict[str, Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    dtype = np.dtype(INPUT_DATATYPES[tensor["datatype"]])
    if "data" in tensor:
        raise ProtocolError("a tensor has its data twice", where=INPUT, expected="data or binary_data_size, not both")
    n_numbers = math.prod(shape)
    _require_bytes(size, n_numbers * dtype.itemsize, f"binary_data_size of {tensor['datatype']} {list(shape)}")
    _require_bytes(len(body) - start, size, "bytes behind the JSON")
    return np.frombuffer(body, dtype, n_numbers, start)


def _require_bytes(found: Any, expected: int, what: str) -> None:
    if type(found) is not int or found != expected:
        raise _wrong("a tensor has another size", f"{INPUT}: {what}", found, expected)


def _as_pixels(numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if numbers.dtype == np.uint8:
        return numbers
    lowest, highest = numbers.min(), numbers.max()
    if not (lowest >= 0 and highest <= 255):  # NaN is neither
        found, what = f"{lowest:g} to {highest:g}", "numbers out of range"
    else:
        pixels = numbers.astype(np.uint8)
        if np.array_equal(pixels, numbers):
            return pixels
        found, what = f"{numbers[pixels != numbers][0]:g}", "numbers that are not whole"
    raise ProtocolError(f"a tensor has {what}", where=INPUT, found=found, expected="whole numbers from 0 to 255")


def _as_float32(numbers: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        values = numbers.astype(np.float32, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        found = f"{numbers[~finite][0]:g}"
        raise ProtocolError("a tensor has numbers out of range", where=INPUT, found=found, expected=_FINITE)
    return values


def _requested_outputs(content: dict[str, Any], binary_by_default: bool) -> tuple[RequestedOutput, ...]:
    outputs = content.get("outputs")
    if not outputs and isinstance(outputs, list | None):
        return (RequestedOutput(PROBABILITIES, binary_by_default),)
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise _wrong("outputs have a wrong type", "outputs", outputs, "a list of objects with a name")
    requested: list[RequestedOutput] = []
    for output in outputs:
        name = output.get("name")
        if not (isinstance(name, str) and name in OUTPUTS):
            raise _wrong("an output is unknown", "outputs", name, f"one of {', '.join(OUTPUTS)}")
        if any(name == each.name for each in requested):
            raise _wrong("an output is asked for twice", "outputs", name, "each once")
        parameters = _parameters(output, name)
        if parameters.get("classification"):
            raise ProtocolError(
                "classification is not supported",
                where=f"outputs: {name}",
                expected="no such parameter; /classify returns classes by name",
            )
        requested.append(RequestedOutput(name, _boolean(parameters, "binary_data", name, binary_by_default)))
    return tuple(requested)


def _wrong(what: str, where: str | None, found: object, expected: object) -> ProtocolError:
    shown = orjson.dumps(found, default=repr).decode()
    if len(shown) > _MAX_SHOWN_CHARACTERS:
        shown = shown[:_MAX_SHOWN_CHARACTERS] + "…"
    return ProtocolError(what, where=where, found=shown, expected=expected)
