"""What a request and its answer look like to each server: whole HTTP/1.1 messages, made once before the clock runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["PROTOCOLS", "Protocol", "Target"]

Images = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


class Target(NamedTuple):
    """A running server.

    Attributes:
        port: on 127.0.0.1.
        path: of the URL that answers.
        protocol: a key of `PROTOCOLS`.
        input_name: the input tensor's name; `output_name` the output's.
    """

    port: int
    path: str
    protocol: str
    input_name: str = "images"
    output_name: str = "probabilities"


class Protocol(NamedTuple):
    """How images become a request's headers and body, and an answer's headers and body probabilities."""

    encode: Callable[[Images, Target], tuple[dict[str, str], bytes]]
    decode: Callable[[dict[bytes, bytes], bytes], Probabilities]

    def request(self, images: Images, target: Target) -> bytes:
        """A whole HTTP request that keeps the connection."""
        headers, body = self.encode(images, target)
        headers = {"Host": f"127.0.0.1:{target.port}", **headers, "Content-Length": str(len(body))}
        lines = [f"POST {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body


def _encode_binary(images: Images, target: Target) -> tuple[dict[str, str], bytes]:
    raw = images.tobytes()
    tensor = {"name": target.input_name, "shape": images.shape, "datatype": "UINT8"}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    output = {"name": target.output_name, "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    kind = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(header))}
    return kind, header + raw


def _decode_binary(headers: dict[bytes, bytes], body: bytes) -> Probabilities:
    n_header_bytes = int(headers[b"inference-header-content-length"])
    (output,) = json.loads(body[:n_header_bytes])["outputs"]
    return np.frombuffer(body, np.float32, offset=n_header_bytes).reshape(output["shape"])


def _encode_base64(images: Images, target: Target) -> tuple[dict[str, str], bytes]:
    # One string an image, so that a server can put the requests of several clients together.
    data = [base64.b64encode(image.tobytes()).decode() for image in images]
    tensor = {"name": target.input_name, "shape": [len(images), 1], "datatype": "BYTES", "data": data}
    tensor["parameters"] = {"content_type": "base64"}
    return {"Content-Type": "application/json"}, json.dumps({"inputs": [tensor]}).encode()


def _decode_json(headers: dict[bytes, bytes], body: bytes) -> Probabilities:
    (output,) = json.loads(body)["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def _encode_bytes(images: Images, target: Target) -> tuple[dict[str, str], bytes]:
    return {"Content-Type": "application/octet-stream"}, images.tobytes()


def _decode_bytes(headers: dict[bytes, bytes], body: bytes) -> Probabilities:
    n_classes = int(headers[b"x-classes"])
    return np.frombuffer(body, np.float32).reshape(-1, n_classes)


PROTOCOLS = {
    "v2 binary": Protocol(_encode_binary, _decode_binary),
    "v2 JSON with base64": Protocol(_encode_base64, _decode_json),
    "raw bytes": Protocol(_encode_bytes, _decode_bytes),
}
