"""A cascade against its full ensemble: the same members, allocation, server, clients and images.

    python benchmarks/cascade.py results/fashion_mnist-hyperband-s0/bundles/budget-8x

The bundle of a cascade is served as it is, and once more with each image shown to all members. Clients send the
dataset's test images: closed loops of eight clients for images/s, and a Poisson process at half of what the full
ensemble manages for latencies, the two in turn, in as many rounds as are asked for. Medians and ratios over the rounds;
test error and changed classes of the served answers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ensembleflow.datasets import open_dataset
from ensembleflow.serving import open_bundle
from ensembleflow.serving.bundle import file_checksums
from ensembleflow.serving.client import ask_server
from ensembleflow.serving.http_server import listen, server_in_thread
from ensembleflow.serving.service import Service

N_TEST_IMAGES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a cascade's bundle in a results folder of the workflow")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 8, 64], help="images per request")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=2, help="seconds before each measurement")
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    if bundle.manifest.cascade is None:
        parser.error(f"{arguments.bundle} is no cascade")
    (dataset_h5,) = (arguments.bundle.resolve().parents[2] / "datasets").glob("*.h5")
    with open_dataset(dataset_h5) as dataset:
        images, labels = dataset.images("test")[:N_TEST_IMAGES], dataset.labels("test")[:N_TEST_IMAGES]
    with tempfile.TemporaryDirectory(prefix="ensembleflow-benchmark-") as folder:
        scratch = Path(folder)
        measured = measure(arguments, images, labels, scratch)
    tell(bundle.manifest.cascade.model_dump(), measured, arguments.sizes)


def measure(
    arguments: argparse.Namespace, images: np.ndarray, labels: np.ndarray, scratch: Path
) -> dict[str, dict[str, Any]]:
    """Both servers' answers and speeds, by name."""
    np.save(scratch / "images.npy", images)
    bundles = {"cascade": arguments.bundle, "full": full_ensemble(arguments.bundle, scratch / "full")}
    measured: dict[str, dict[str, Any]] = {name: {"speeds": {}, "half load": {}} for name in bundles}
    model = open_bundle(arguments.bundle).manifest.study
    for name, path in bundles.items():
        with served(path) as url:
            parts = [images[start : start + 64] for start in range(0, len(images), 64)]
            answers = ask_server(url, model, parts)
        np.save(scratch / f"{name}.npy", answers)
        measured[name] |= {"classes": answers.argmax(axis=1), "error": float((answers.argmax(axis=1) != labels).mean())}
    for number in range(arguments.rounds):
        for size in arguments.sizes:
            for name, path in bundles.items():
                with served(path) as url:
                    settings = {
                        "target": {
                            "protocol": "v2 binary",
                            "port": int(url.rsplit(":", 1)[1]),
                            "path": f"/v2/models/{model}/infer",
                        },
                        "images": str(scratch / "images.npy"),
                        "expected": str(scratch / f"{name}.npy"),
                        "request_images": size,
                        "clients": arguments.clients,
                        "warmup_seconds": arguments.warmup,
                        "seconds": arguments.seconds,
                    }
                    closed = load({**settings, "arrivals": "closed", "images_per_second": 0}, scratch)
                    measured[name]["speeds"].setdefault(size, []).append(closed["images_per_second"])
                    # What the full ensemble managed in the round before it, or else now.
                    rates = measured["full"]["speeds"].get(size) or [closed["images_per_second"]]
                    rate = median(rates) / 2
                    half = load({**settings, "arrivals": "random", "images_per_second": rate}, scratch)
                    measured[name]["half load"].setdefault(size, []).append((half["p50_ms"], half["p99_ms"]))
                told = f"round {number + 1}: {name}, {size} images per request"
                speeds = f"{closed['images_per_second']:,.0f} images/s, p99 {half['p99_ms']:.1f} ms at half load"
                print(f"{told}: {speeds}", file=sys.stderr, flush=True)
    return measured


def full_ensemble(bundle: Path, copy: Path) -> Path:
    """The same bundle, each image shown to all members."""
    shutil.copytree(bundle, copy)
    shutil.copy(copy / "check/full_probabilities.npy", copy / "check/probabilities.npy")
    (copy / "check/full_probabilities.npy").unlink()
    manifest = json.loads((copy / "bundle.json").read_text(encoding="utf-8"))
    manifest |= {"cascade": None, "files": {}}
    (copy / "bundle.json").write_text(json.dumps({**manifest, "files": file_checksums(copy)}), encoding="utf-8")
    return copy


class served(ExitStack):  # noqa: N801 - a context manager
    """A server of a bundle, in this process; gives its URL."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def __enter__(self) -> str:  # type: ignore[override]
        bundle = open_bundle(self._path)
        url: str = self.enter_context(server_in_thread(Service(bundle, bundle.dispatcher()), listen("127.0.0.1", 0)))
        return url


def load(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What clients in a process of their own measure."""
    file = folder / "load.json"
    file.write_text(json.dumps(settings))
    script = Path(__file__).with_name("serving_load.py")
    done = subprocess.run([sys.executable, str(script), str(file)], stdout=subprocess.PIPE, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    if measured["failures"] or not measured["n_requests"]:
        raise SystemExit(f"wrong answers or none: {measured}")
    return measured


def tell(cascade: dict[str, Any], measured: dict[str, dict[str, Any]], sizes: list[int]) -> None:
    """Print the table."""
    ours, full = measured["cascade"], measured["full"]
    n_changed = int((ours["classes"] != full["classes"]).sum())
    shares = ", ".join(f"{share:.1%}" for share in cascade["shares"])
    print(f"members see {shares} of the calibration images")
    n_images = len(ours["classes"])
    print(f"test error {ours['error']:.2%}, full {full['error']:.2%}; {n_changed} of {n_images} images changed\n")
    print("| images per request | cascade, images/s | full, images/s | ratio | p99 at half load, ms | full |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in sizes:
        ratio = median(one / other for one, other in zip(ours["speeds"][size], full["speeds"][size], strict=True))
        speeds = [median(each["speeds"][size]) for each in (ours, full)]
        p99 = [median(worst for _, worst in each["half load"][size]) for each in (ours, full)]
        print(f"| {size} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {ratio:.2f} | {p99[0]:.1f} | {p99[1]:.1f} |")


if __name__ == "__main__":
    main()
