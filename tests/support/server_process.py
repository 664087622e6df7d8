"""A real server process, `ensembleflow serve`, and what tests ask it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Self

import httpx
import numpy as np
import psutil
from PIL import Image

from ensembleflow.serving.bundle import file_checksums

MODEL = "digits-random-s0"
INFER = f"/v2/models/{MODEL}/infer"
PATIENCE_SECONDS = 120.0
TOKEN, MAX_IMAGES = "a-token", 8  # of the small server


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


def write_answers(bundle: Path, answers: np.ndarray, **changes: object) -> None:
    np.save(bundle / "check" / "probabilities.npy", answers.astype(np.float32))
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**manifest, **changes, "files": file_checksums(bundle)}))


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def infer_json(images: np.ndarray, **content) -> dict:
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.tolist()}
    return {"inputs": [tensor], **content}


class ServerProcess:
    """Use it in a `with` block, which ends it."""

    def __init__(
        self, bundle: Path, folder: Path, *options: str, token: str | None = None, python: str | Path = sys.executable
    ) -> None:
        self.log = folder / "server.log"
        self._python = python
        self._bundle = bundle
        self._options = options
        self._token = token

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if name != "ENSEMBLEFLOW_TOKEN"}
        if self._token is not None:
            environment["ENSEMBLEFLOW_TOKEN"] = self._token
        command = [self._python, "-m", "ensembleflow.cli", "serve", str(self._bundle), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--log-file", str(self.log), *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()
        words = [word.rstrip(";") for word in self.greeting.split() if word.startswith("http://")]
        assert words, self.process.communicate()
        self.url = words[0]
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        for pid in self.workers():
            os.kill(pid, signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def wait_until_ready(self) -> Self:
        wait_until(lambda: self.client.get("/v2/health/ready").status_code == 200, "members are ready")
        return self

    def infer(self, images: np.ndarray, **content) -> httpx.Response:
        return self.client.post(INFER, json=infer_json(images, **content))

    def metric(self, sample: str) -> float:
        lines = dict(line.rsplit(" ", 1) for line in self.client.get("/metrics").text.splitlines() if line[0] != "#")
        return float(lines.get(sample, "nan"))

    def workers(self) -> list[int]:
        try:
            return [child.pid for child in psutil.Process(self.process.pid).children()]
        except psutil.NoSuchProcess:
            return []

    @contextmanager
    def stopped_workers(self) -> Iterator[None]:
        """Members get orders and answer none."""
        pids = self.workers()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def log_lines(self) -> list[dict]:
        # What follows the last line break is still being written.
        return [json.loads(line) for line in self.log.read_text().split("\n")[:-1]]

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=PATIENCE_SECONDS)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def request_bytes(server: ServerProcess, images: np.ndarray, *headers: str, n_spaces: int = 0) -> bytes:
    """A whole request; spaces make its body longer."""
    body = b" " * n_spaces + json.dumps(infer_json(images)).encode()
    lines = [f"POST {INFER} HTTP/1.1", f"Host: {server.address[0]}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
