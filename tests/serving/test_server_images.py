"""Image files sent to the server."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from support.server_process import (
    INFER,
    png,
)


def bomb() -> bytes:
    """A few bytes that promise 65536x65536 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 65536, 65536, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return png(np.zeros((1, 1), np.uint8))[:8] + chunk + png(np.zeros((1, 1), np.uint8))[33:]


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
