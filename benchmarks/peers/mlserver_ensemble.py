"""MLServer, whose one model calls the members in turn.

python peers/mlserver_ensemble.py SETTINGS.json FOLDER    # port, members, image_shape, threads, workers, batch

Its REST interface has no binary tensors: images come as base64, one string each, which is the shortest that it takes.
FOLDER gets the files that `mlserver start` reads.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
from members import average, load_members
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Ensemble(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        extra = self.settings.parameters.extra
        self.image_shape = tuple(extra["image_shape"])
        self.members = load_members(extra["members"], extra["threads"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        raw = b"".join(Base64Codec.decode_input(payload.inputs[0]))
        images = np.frombuffer(raw, np.uint8).reshape(-1, *self.image_shape)
        probabilities = average(self.members, images).astype(np.float32)
        output = NumpyCodec.encode_output("probabilities", probabilities)
        return InferenceResponse(model_name=self.name, outputs=[output])


def main() -> None:
    settings, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    ports = {f"{kind}_port": settings["port"] + place for place, kind in enumerate(("http", "grpc", "metrics"))}
    server = {"host": "127.0.0.1", "parallel_workers": settings["workers"], "debug": False, **ports}
    extra = {name: settings[name] for name in ("members", "image_shape", "threads")}
    model = {"name": "ensemble", "implementation": "mlserver_ensemble.Ensemble", "parameters": {"extra": extra}}
    if settings["batch"]:
        model.update(max_batch_size=settings["batch"], max_batch_time=0.005)
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = str(Path(sys.executable).with_name("mlserver"))
    os.chdir(folder)
    os.execve(command, [command, "start", str(folder)], environment)


if __name__ == "__main__":
    main()
