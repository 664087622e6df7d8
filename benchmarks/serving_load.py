"""The clients, in a process of their own.

In a closed loop each sends when it has its answer, in an open loop at moments that were set beforehand.

    python serving_load.py SETTINGS.json        # prints a JSON object

Requests are built before the clock runs and answers are read after it has stopped, so that a client costs the
machine little more than the system calls; `client_cores` tells how much.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from serving_protocols import PROTOCOLS, Target

# Different requests, so that an answer to another's request is found out.
N_DIFFERENT_REQUESTS = 16
# More connections than requests that are ever open at half load.
N_OPEN_LOOP_CLIENTS = 64
_RECEIVE_BYTES = 2**18


class Exchange(NamedTuple):
    """One request: which, when it was due and answered (seconds), and the answer."""

    request: int
    due: float
    done: float
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Connection:
    """One that is kept."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def exchange(self, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send a request; the answer's status, headers (in lower case) and body."""
        self._socket.sendall(request)
        status_line, *lines = self._until(b"\r\n\r\n").split(b"\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(b":", 1) for line in lines)}
        if headers.get(b"transfer-encoding") == b"chunked":
            chunks = []
            while n_bytes := int(self._until(b"\r\n"), 16):
                chunks.append(self._bytes(n_bytes))
                self._bytes(2)
            self._bytes(2)
            body = b"".join(chunks)
        else:
            body = self._bytes(int(headers[b"content-length"]))
        return int(status_line.split()[1]), headers, body

    def _until(self, mark: bytes) -> bytes:
        while (end := self._received.find(mark)) < 0:
            self._receive()
        found, self._received = self._received[:end], self._received[end + len(mark) :]
        return found

    def _bytes(self, n_bytes: int) -> bytes:
        while len(self._received) < n_bytes:
            self._receive()
        found, self._received = self._received[:n_bytes], self._received[n_bytes:]
        return found

    def _receive(self) -> None:
        if not (part := self._socket.recv(_RECEIVE_BYTES)):
            raise ConnectionError("the server closed the connection")
        self._received += part

    def close(self) -> None:
        self._socket.close()


class Load:
    """Clients that send for some seconds.

    Args:
        target: the server.
        requests: whole HTTP requests.
        due: seconds after the start at which each request is due (open loop); None: closed loop.
    """

    def __init__(self, target: Target, requests: list[bytes], due: np.ndarray | None) -> None:
        self._target = target
        self._requests = requests
        self._due = due
        self._lock = threading.Lock()
        self._next = 0
        self.exchanges: list[Exchange] = []
        self.failures: list[str] = []

    def run(self, n_clients: int, seconds: float) -> None:
        connections = [Connection(self._target.port) for _ in range(n_clients)]
        self.started_at = time.perf_counter()
        self._ends_at = self.started_at + seconds
        threads = [threading.Thread(target=self._client, args=(each,)) for each in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for each in connections:
            each.close()

    def _client(self, connection: Connection) -> None:
        try:
            while (taken := self._take()) is not None:
                number, due = taken
                if (early := due - time.perf_counter()) > 0:
                    time.sleep(early)
                answer = connection.exchange(self._requests[number])
                self.exchanges.append(Exchange(number, due, time.perf_counter(), *answer))
        except (OSError, ValueError, KeyError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def _take(self) -> tuple[int, float] | None:
        """The next request and when it is due: now, in a closed loop."""
        with self._lock:
            place = self._next
            self._next += 1
        now = time.perf_counter()
        if self._due is None:
            return (place % len(self._requests), now) if now < self._ends_at else None
        return (place % len(self._requests), self.started_at + self._due[place]) if place < len(self._due) else None


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Put load on a server.

    Args:
        settings: `target`; `images` and `expected`, .npy files; `request_images`; `clients`; `warmup_seconds` and
            `seconds`; `arrivals`, `closed` for a closed loop, or when an open loop's requests are due: `random`ly
            (a Poisson process) or `even`ly; `images_per_second`, what an open loop offers.

    Returns:
        images_per_second, n_requests, p50_ms, p99_ms, worst_difference from the expected probabilities, client_cores,
        and failures (texts).
    """
    target = Target(**settings["target"])
    protocol = PROTOCOLS[target.protocol]
    images, expected = np.load(settings["images"]), np.load(settings["expected"])
    n, size = len(images), settings["request_images"]
    chosen = [(np.arange(size) + round(i * n / N_DIFFERENT_REQUESTS)) % n for i in range(N_DIFFERENT_REQUESTS)]
    requests = [protocol.request(images[each], target) for each in chosen]
    warmup, seconds = settings["warmup_seconds"], settings["seconds"]
    due, n_clients = None, settings["clients"]
    if settings["arrivals"] != "closed":
        due = ARRIVALS[settings["arrivals"]](settings["images_per_second"] / size, warmup + seconds)
        n_clients = N_OPEN_LOOP_CLIENTS
    load = Load(target, requests, due)
    cpu_seconds = time.process_time()
    load.run(n_clients, warmup + seconds)
    client_cores = (time.process_time() - cpu_seconds) / (time.perf_counter() - load.started_at)
    first, last = load.started_at + warmup, load.started_at + warmup + seconds
    failures, worst = load.failures, 0.0
    for each in load.exchanges:
        if each.status != 200:
            failures.append(f"status {each.status}: {each.body[:200]!r}")
            continue
        difference = protocol.decode(each.headers, each.body) - expected[chosen[each.request]]
        worst = max(worst, float(np.abs(difference).max()))
    # A closed loop is counted by what was answered within the window, an open one by what was due within it.
    moments = [each.due if due is not None else each.done for each in load.exchanges]
    counted = [each for each, moment in zip(load.exchanges, moments, strict=True) if first <= moment < last]
    latencies = [1000 * (each.done - each.due) for each in counted] or [float("nan")]
    p50, p99 = np.percentile(latencies, [50, 99])
    return {
        "images_per_second": len(counted) * size / seconds,
        "n_requests": len(counted),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "worst_difference": worst,
        "client_cores": client_cores,
        "failures": failures[:5],
    }


def even_arrivals(requests_per_second: float, seconds: float) -> np.ndarray:
    """Moments with the same time between them, in seconds from the start."""
    return np.arange(0, seconds, 1 / requests_per_second)


def random_arrivals(requests_per_second: float, seconds: float) -> np.ndarray:
    """Moments of a Poisson process, in seconds from its start, the same for every contender."""
    random = np.random.default_rng(0)
    n = int(2 * requests_per_second * seconds) + 100
    moments = np.cumsum(random.exponential(1 / requests_per_second, n))
    return moments[moments < seconds]


ARRIVALS = {"even": even_arrivals, "random": random_arrivals}

if __name__ == "__main__":
    print(json.dumps(measure(json.loads(Path(sys.argv[1]).read_text()))))
