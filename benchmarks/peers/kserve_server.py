"""KServe's Python model server, whose one model calls the members in turn.

python peers/kserve_server.py SETTINGS.json    # port, members (folders), threads, workers
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from members import average, load_members


class Ensemble(Model):  # type: ignore[misc]
    def __init__(self, folders: list[str], threads: int) -> None:
        super().__init__("ensemble")
        self.folders = folders
        self.threads = threads

    def load(self) -> bool:
        # Aside: KServe kills a worker that does not answer within 5 s, and its workers unpickle the model first.
        self.loading = threading.Thread(target=self._load)
        self.loading.start()
        self.ready = True
        return self.ready

    def _load(self) -> None:
        self.members = load_members(self.folders, self.threads)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("loading", "members")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.load()

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        self.loading.join()
        probabilities = average(self.members, payload.inputs[0].as_numpy()).astype(np.float32)
        output = InferOutput("probabilities", list(probabilities.shape), "FP32")
        output.set_data_from_numpy(probabilities, binary_data=True)
        return InferResponse(
            payload.id, self.name, [output], requested_outputs=payload.request_outputs, use_binary_outputs=True
        )


if __name__ == "__main__":
    logging.disable(logging.INFO)  # it would write three lines per request
    settings = json.loads(Path(sys.argv.pop(1)).read_text())
    model = Ensemble(settings["members"], settings["threads"])
    if settings["workers"] == 1:
        model.load()
    model.ready = True
    ModelServer(
        http_port=settings["port"], workers=settings["workers"], enable_grpc=False, enable_latency_logging=False
    ).start([model])
