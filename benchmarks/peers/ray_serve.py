"""Ray Serve: a deployment a member, and an ingress that averages.

python peers/ray_serve.py SETTINGS.json    # port, members (folders), image_shape, batch, threads, n_cpus

With `batch`, members take the requests of several clients together by `@serve.batch`, as the documentation of Ray
Serve recommends. The cores that Ray counts are logical ones: as many as let all replicas run at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

SETTINGS = json.loads(Path(sys.argv[1]).read_text())
IMAGE_SHAPE = tuple(SETTINGS["image_shape"])
MEMBERS_FOLDER = str(Path(__file__).parent)


class Member:
    def __init__(self, folder: str, threads: int) -> None:
        from members import load_members

        (self.function,) = load_members([folder], threads)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.function(images)


class BatchingMember(Member):
    @serve.batch(max_batch_size=SETTINGS["batch"] or 1, batch_wait_timeout_s=0.005)
    async def __call__(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        answers = self.function(np.concatenate(requests))
        return np.split(answers, np.cumsum([len(each) for each in requests])[:-1])


class Ingress:
    def __init__(self, *members: serve.handle.DeploymentHandle) -> None:
        self.members = members

    async def __call__(self, request: Request) -> Response:
        images = np.frombuffer(await request.body(), np.uint8).reshape(-1, *IMAGE_SHAPE)
        answers = await asyncio.gather(*(member.remote(images) for member in self.members))
        average = np.mean(answers, axis=0, dtype=np.float32)
        return Response(
            average.tobytes(),
            media_type="application/octet-stream",
            headers={"x-classes": str(average.shape[1])},
        )


def main() -> None:
    n_members = len(SETTINGS["members"])
    ray.init(
        num_cpus=n_members + 2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": MEMBERS_FOLDER}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": SETTINGS["port"]}, logging_config={"log_level": "ERROR"})
    made = [
        serve.deployment(BatchingMember if SETTINGS["batch"] else Member)
        .options(name=f"member-{place}", ray_actor_options={"num_cpus": 1}, max_ongoing_requests=100)
        .bind(folder, SETTINGS["threads"])
        for place, folder in enumerate(SETTINGS["members"])
    ]
    ingress = serve.deployment(Ingress).options(
        name="ingress", ray_actor_options={"num_cpus": 1}, max_ongoing_requests=100
    )
    serve.run(ingress.bind(*made))
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
