"""Who takes part in the serving benchmark: how each is installed, started, found ready, and ended with its children.

Peers get virtual environments of their own in `~/.cache/ensembleflow-benchmark`, made by the first run, with the
TensorFlow of requirements.lock.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from serving_load import Connection
from serving_protocols import PROTOCOLS, Target

from ensembleflow.models.engines import DEFAULT_ENGINE, ENGINES, FLOAT32_ENGINES

__all__ = [
    "BFLOAT16",
    "IN_PROCESS",
    "IN_TURN",
    "OURS",
    "PEERS",
    "SAME_ENGINE",
    "SEARCHED",
    "Contender",
    "Input",
    "in_process",
    "ours",
    "peers",
    "running",
    "started",
]

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path.home() / ".cache" / "ensembleflow-benchmark"
SAME_ENGINE, SEARCHED, BFLOAT16 = "ours", "ours, searched", "ours, searched, bfloat16 allowed"
OURS = {SAME_ENGINE: (DEFAULT_ENGINE,), SEARCHED: FLOAT32_ENGINES, BFLOAT16: ENGINES}  # what may compute a member
IN_PROCESS, IN_TURN = "ours in process", "TensorFlow in turn"
PEERS = {"Ray Serve": "ray[serve]==2.60.0", "KServe": "kserve==0.21.0", "MLServer": "mlserver==1.7.1"}
# MLServer 1.7.1 calls uvloop as it was before 0.22: its workers end at their start with a newer one.
BESIDE = {"mlserver==1.7.1": ["uvloop<0.22"]}
READY_SECONDS = 240
_TOKEN = "ENSEMBLEFLOW_BENCHMARK_TOKEN"


@dataclass(frozen=True)
class Input:
    """An ensemble to serve.

    Attributes:
        title: for the tables.
        study: the study's folder in a results folder; `models` its members.
        bundles: bundle folders by the names of `OURS`.
        images: .npy file of uint8 images; `expected` of their probabilities.
        image_shape: (height, width, channels).
    """

    title: str
    study: Path
    models: list[str]
    bundles: dict[str, Path]
    images: Path
    expected: Path
    image_shape: tuple[int, int, int]

    @property
    def members(self) -> list[str]:
        """The folders of the members' exported functions."""
        return [str(self.bundles[SAME_ENGINE] / "members" / model) for model in self.models]


@dataclass(frozen=True)
class Contender:
    """One way to run an ensemble.

    Attributes:
        name: who; `setting` with which setting, of which the best is kept for each request size.
        command: (input, settings file, port) to the command line of a server, or of a process that measures itself.
        settings: for a settings file beside `port`.
        target: where a server answers; None for a process that measures itself.
        environment: variables to set.
    """

    name: str
    setting: str
    command: Callable[[Input, Path, int], list[str]]
    settings: dict[str, Any] = field(default_factory=dict)
    target: Target | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name and setting."""
        return f"{self.name}, {self.setting}" if self.setting else self.name


def ours(name: str) -> Contender:
    """`ensembleflow serve` with one of the input's bundles."""
    return Contender(
        name=name,
        setting="",
        command=lambda given, _, port: [
            *(sys.executable, "-m", "ensembleflow.cli", "serve", str(given.bundles[name]), "--port", str(port))
        ],
        target=Target(0, "", "v2 binary"),  # a bundle is served under its study's name
    )


def in_process(name: str, mode: str, **settings: Any) -> Contender:
    """A process that measures itself, without HTTP: `serving_in_process.py`."""
    script = str(Path(__file__).parent / "serving_in_process.py")
    setting = f"{settings['threads']} threads" if "threads" in settings else ""
    return Contender(
        name=name,
        setting=setting,
        command=lambda given, file, _: [sys.executable, script, str(file)],
        settings={"mode": mode, **settings},
    )


def peers(name: str, n_clients: int) -> list[Contender]:
    """A peer with each of its settings; it is installed if it is not there."""
    python = str(_python_of(PEERS[name]))
    infer = "/v2/models/ensemble/infer"

    def one(setting: str, script: str, target: Target, environment: dict[str, str] | None = None, **settings: Any):  # type: ignore[no-untyped-def]
        def command(given: Input, file: Path, _: int) -> list[str]:
            return [python, str(SCRIPTS / script), str(file), str(file.with_suffix(""))]

        return Contender(name, setting, command, settings, target, environment or {})

    if name == "Ray Serve":
        target = Target(0, "/", "raw bytes")
        fast = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
        return [
            one("@serve.batch, 1 thread", "ray_serve.py", target, threads=1, batch=n_clients),
            one("@serve.batch, 2 threads", "ray_serve.py", target, threads=2, batch=n_clients),
            one("no batching, 1 thread", "ray_serve.py", target, threads=1, batch=0),
            one("throughput-optimised", "ray_serve.py", target, fast, threads=1, batch=n_clients),
        ]
    if name == "KServe":
        target = Target(0, infer, "v2 binary")
        return [
            one("1 worker, 2 threads", "kserve_server.py", target, workers=1, threads=2),
            one("2 workers, 1 thread", "kserve_server.py", target, workers=2, threads=1),
        ]
    target = Target(0, infer, "v2 JSON with base64")
    return [
        one("no worker, 2 threads, batching", "mlserver_ensemble.py", target, workers=0, threads=2, batch=n_clients),
        one("1 worker, 2 threads, batching", "mlserver_ensemble.py", target, workers=1, threads=2, batch=n_clients),
        one("2 workers, 1 thread, batching", "mlserver_ensemble.py", target, workers=2, threads=1, batch=n_clients),
    ]


def _python_of(requirement: str) -> Path:
    """The interpreter of an environment with a peer and TensorFlow, made if it is not there."""
    folder = ENVIRONMENTS / requirement
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {requirement} into {folder}", file=sys.stderr, flush=True)
        lock = (REPOSITORY / "requirements.lock").read_text()
        tensorflow = re.findall(r"^(tensorflow(?:-cpu)?==\S+ ; .*?) *\\$", lock, re.MULTILINE)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", requirement, *tensorflow, *BESIDE.get(requirement, [])],
            check=True,
        )
        (folder / "complete").touch()
    return python


@contextmanager
def started(contender: Contender, given: Input, folder: Path) -> Iterator[Target]:
    """Start a server and wait until it answers; at the end nothing of it is left."""
    assert contender.target is not None
    port = free_port()
    with running(contender, given, folder, {"port": port}) as process:
        target = contender.target._replace(port=port)
        if not target.path:
            target = target._replace(path=f"/v2/models/{given.study.name}/infer")
        _wait_until_it_answers(process, target, np.load(given.images)[:1])
        yield target


@contextmanager
def running(
    contender: Contender, given: Input, folder: Path, settings: dict[str, Any]
) -> Iterator[subprocess.Popen[bytes]]:
    """A contender's process; at the end it and all that it started are killed."""
    token = uuid.uuid4().hex
    file, output = folder / f"{token}.json", folder / f"{token}.log"
    known = {"members": given.members, "image_shape": given.image_shape}
    file.write_text(json.dumps({**known, **contender.settings, **settings}))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", _TOKEN: token, **contender.environment}
    path = [str(REPOSITORY / "workflow"), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    port = settings.get("port", 0)
    with open(output, "wb") as log:
        process = subprocess.Popen(
            contender.command(given, file, port), stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            yield process
        except BaseException:
            print(f"{contender.title}: {output.read_text(errors='replace')[-3000:]}", file=sys.stderr)
            raise
        finally:
            _end(process, token)


def _end(process: subprocess.Popen[bytes], token: str) -> None:
    """Ask the process to end, then kill whatever carries its token, which children inherit."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    while left := _carrying(token):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.1)
    process.wait()


def _carrying(token: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if token.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def _wait_until_it_answers(process: subprocess.Popen[bytes], target: Target, image: np.ndarray) -> None:
    request = PROTOCOLS[target.protocol].request(image, target)
    _poll(process, lambda: Connection(target.port).exchange(request)[0] == 200)


def _poll(process: subprocess.Popen[bytes], answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"a contender ended at its start with exit status {process.returncode}")
        with suppress(OSError):
            if answers():
                return
        time.sleep(0.2)
    raise SystemExit(f"a contender was not ready within {READY_SECONDS} s")


def free_port() -> int:
    """The first of three ports in a row that nobody uses."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
                return port
