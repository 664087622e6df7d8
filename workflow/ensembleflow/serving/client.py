"""Asking a running server for probabilities, as any client of the Open Inference Protocol does."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import orjson

from ensembleflow.errors import ServingError
from ensembleflow.serving.protocol import HEADER_LENGTH
from ensembleflow.serving.signature import DATATYPES, INPUT, PROBABILITIES

__all__ = ["ask_server"]


def ask_server(
    url: str, model: str, requests: Sequence[npt.NDArray[Any]], timeout_seconds: float = 300.0
) -> npt.NDArray[np.float32]:
    """The probabilities that a server answers with, asked in binary over one connection.

    Args:
        url: of the server, such as `http://127.0.0.1:8000`.
        model: the model's name.
        requests: the images of each, uint8 or float32 (images, ...).
        timeout_seconds: for each answer.

    Returns:
        float32 (images, classes), those of all requests.

    Raises:
        ServingError: the server cannot be reached, or refuses.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_seconds)
    try:
        return np.concatenate([_ask(connection, model, images) for images in requests])
    except (OSError, http.client.HTTPException) as error:
        raise ServingError("the server does not answer", where=url, found=error) from None
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection, model: str, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    pixels = images.tobytes()
    head = orjson.dumps(
        {
            "inputs": [
                {
                    "name": INPUT,
                    "datatype": DATATYPES[images.dtype.name],
                    "shape": list(images.shape),
                    "parameters": {"binary_data_size": len(pixels)},
                }
            ],
            "outputs": [{"name": PROBABILITIES, "parameters": {"binary_data": True}}],
        }
    )
    headers = {HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    connection.request("POST", f"/v2/models/{model}/infer", head + pixels, headers)
    response = connection.getresponse()
    body = response.read()
    if response.status != http.HTTPStatus.OK:
        found = f"{response.status}: {body[:500].decode('utf-8', 'replace')}"
        raise ServingError("the server refuses", where=f"model {model}", found=found)
    length = int(response.getheader(HEADER_LENGTH, "0"))
    (output,) = orjson.loads(body[:length])["outputs"]
    return np.frombuffer(body[length:], np.float32).reshape(output["shape"])
