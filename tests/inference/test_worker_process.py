"""What a member's process does before its first request."""

from __future__ import annotations

import threading
from contextlib import suppress
from multiprocessing import Pipe

import numpy as np
import pytest

from ensembleflow.inference import worker_process
from ensembleflow.inference.shared_array import SharedArray
from ensembleflow.models.engines import LoadedEngine


class Recording(LoadedEngine):
    """Answers all images alike, and keeps the sizes of the batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def answer(self, images):
        self.sizes.append(len(images))
        return np.full((len(images), 10), 0.1, np.float32)


@pytest.fixture
def sizes_when_ready(monkeypatch):
    """The sizes that were computed when the process said that it was ready."""

    def started(batch_size: int, warm_up_seconds: float) -> list[int]:
        engine = Recording()
        monkeypatch.setattr(worker_process, "load_pinned", lambda *_, **__: engine)
        images, probabilities = SharedArray((1, 4, 8, 8, 1), np.uint8), SharedArray((1, 4, 10), np.float32)
        ours, theirs = Pipe()
        settings = {
            "engine": "",
            "exported": "",
            "core_ids": [],
            "gpu": False,
            "batch_size": batch_size,
            "warm_up_seconds": warm_up_seconds,
            "images_shape": (1, 4, 8, 8, 1),
            "images_dtype": "uint8",
            "n_classes": 10,
        }

        def obey() -> None:
            with suppress(EOFError):
                worker_process.obey(theirs, settings, images.fd, probabilities.fd)

        process = threading.Thread(target=obey)
        process.start()
        with ours:
            assert ours.recv()[0] == "ready"
        process.join()
        images.close()
        probabilities.close()
        return engine.sizes

    return started


def test_a_process_computes_its_batch_size_and_the_usual_ones_below_it_before_it_is_ready(sizes_when_ready):
    assert sizes_when_ready(batch_size=1, warm_up_seconds=60) == [1]
    assert sizes_when_ready(batch_size=5, warm_up_seconds=60) == [5, 1, 2, 3, 4]
    sizes = sizes_when_ready(batch_size=128, warm_up_seconds=60)
    assert sizes == [128, *worker_process.USUAL_BATCHES]
    assert set(range(1, 16)) < set(sizes)


def test_a_process_without_time_to_warm_up_computes_its_batch_size_alone(sizes_when_ready):
    assert sizes_when_ready(batch_size=128, warm_up_seconds=0) == [128]
