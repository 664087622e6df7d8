"""What a killed member costs: a server under load, one member's process after the other killed.

    python benchmarks/serving_recovery.py results/digits-hyperband-s0/bundles/budget-8x --clients 4

Each client asks for the bundle's check images again and again, eight at a time, and compares the answers with the
bundle's own. A member is killed; full service is back when every client has been answered by all members again. The
table, Markdown on the standard output, counts right answers, refusals (503) and wrong answers from the kill until then.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil

from ensembleflow.errors import ServingError
from ensembleflow.serving import open_bundle
from ensembleflow.serving.client import ask_server

IMAGES_A_REQUEST = 8
PATIENCE_SECONDS = 120.0
PAUSE_AFTER_A_REFUSAL_SECONDS = 0.02
QUIET_SECONDS = 8.0


class Clients:
    """Clients that ask without a pause, and what they were answered since the last kill."""

    def __init__(self, url: str, bundle: Path, n_clients: int) -> None:
        opened = open_bundle(bundle)
        self._url, self._model = url, opened.manifest.study
        self._images, self._expected = opened.check_images(), opened.check_probabilities()
        self._tolerance = opened.answer_tolerance(opened.allocation)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(n_clients)]
        self.reset()
        for thread in self._threads:
            thread.start()

    def reset(self) -> None:
        with self._lock:
            self.killed_at = time.monotonic()
            self.n_right, self.n_refused, self.n_wrong = 0, 0, 0
            self.last_refusal_at = 0.0
            self.answered_since_refusal: set[int] = set()

    def back(self) -> bool:
        """Whether every client has been answered since the last refusal; without any, replicas did the work."""
        with self._lock:
            nothing_to_wait_for = time.monotonic() - self.killed_at > QUIET_SECONDS
            refused = self.n_refused > 0 or nothing_to_wait_for
            return refused and len(self.answered_since_refusal) == len(self._threads)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        random = np.random.default_rng(number)
        while not self._stop.is_set():
            chosen = random.integers(0, len(self._images), IMAGES_A_REQUEST)
            try:
                answer = ask_server(self._url, self._model, [self._images[chosen]])
            except ServingError:
                with self._lock:
                    self.n_refused += 1
                    self.last_refusal_at = time.monotonic()
                    self.answered_since_refusal.clear()
                time.sleep(PAUSE_AFTER_A_REFUSAL_SECONDS)
                continue
            right = bool((np.abs(answer - self._expected[chosen]) <= self._tolerance).all())
            with self._lock:
                self.n_right += right
                self.n_wrong += not right
                self.answered_since_refusal.add(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=4)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "ensembleflow.cli", "serve", str(arguments.bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            url = next(word for word in server.stdout.readline().split() if word.startswith("http")).rstrip(";")
            if not server.stdout.readline().startswith("ready"):
                raise SystemExit("the server did not start")
            _kill_each(server.pid, url, arguments.bundle, arguments.clients)
        finally:
            server.terminate()


def _kill_each(server: int, url: str, bundle: Path, n_clients: int) -> None:
    clients = Clients(url, bundle, n_clients)
    seconds = []
    try:
        time.sleep(3)
        print("| killed | right answers | refused (503) | wrong | seconds until full service |")
        print("| --- | --- | --- | --- | --- |")
        for _ in open_bundle(bundle).allocation:
            before = _failures(url)
            clients.reset()
            os.kill(_oldest_worker(server), signal.SIGKILL)
            while not clients.back():
                if time.monotonic() - clients.killed_at > PATIENCE_SECONDS:
                    raise SystemExit("the member did not come back")
                time.sleep(0.05)
            taken = max(0.0, clients.last_refusal_at - clients.killed_at)
            seconds.append(taken)
            killed = ", ".join(model for model, count in _failures(url).items() if count > before.get(model, 0))
            print(
                f"| {killed} | {clients.n_right} | {clients.n_refused} | {clients.n_wrong} | {taken:.1f} |",
                flush=True,
            )
            time.sleep(2)
    finally:
        clients.close()
    print(f"\nmedian {statistics.median(seconds):.1f} s, slowest {max(seconds):.1f} s")


def _oldest_worker(server: int) -> int:
    """The member's process that has run longest: each is killed once."""
    children = [
        child
        for child in psutil.Process(server).children()
        if any("worker_process" in part for part in child.cmdline())
    ]
    return int(min(children, key=lambda child: child.create_time()).pid)


def _failures(url: str) -> dict[str, float]:
    """How often each member has failed so far."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        text = response.read().decode()
    return {
        model: float(count)
        for model, count in re.findall(r'ensembleflow_member_failures_total\{model="([^"]+)"\} (\S+)', text)
    }


if __name__ == "__main__":
    main()
