"""The server against Ray Serve, KServe, MLServer and one process calling TensorFlow: same members, images and engine.

    python benchmarks/serving.py --bundle results/digits-hyperband-s0/bundles/budget-8x
    python benchmarks/serving.py --contenders ours KServe --rounds 1 --seconds 2

Serves an ensemble of seven CIFAR-shaped networks of mixed sizes (`serving_ensemble.py`) and, with `--bundle`, that of a
bundle of the workflow, with TensorFlow as engine for all, and with the engines that the allocation's search picks for
ours, in float32 or with bfloat16 allowed as well. Peers get virtual environments of their own in
`~/.cache/ensembleflow-benchmark`, made by the first run, and several settings each, of which the best at each request
size counts. Contenders take turns within a round; the tables, Markdown on the standard output, give medians over the
rounds, and medians of the rounds' ratios. Every answer is compared with the bundle's own.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from serving_contenders import (
    BFLOAT16,
    IN_PROCESS,
    IN_TURN,
    OURS,
    PEERS,
    SAME_ENGINE,
    SEARCHED,
    Contender,
    Input,
    in_process,
    ours,
    peers,
    running,
    started,
)
from serving_ensemble import STUDY, bundle_of
from serving_limit import Limit, measure_limit
from serving_load import ARRIVALS
from serving_tables import Results, print_tables

from ensembleflow.io import provenance
from ensembleflow.models.tolerances import answer_tolerance
from ensembleflow.serving import open_bundle


def main() -> None:
    names = (*OURS, IN_PROCESS, *PEERS, IN_TURN)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a bundle in a results folder of the workflow, served as well")
    parser.add_argument("--only-bundle", action="store_true", help="leave the CIFAR-shaped ensemble out")
    parser.add_argument("--contenders", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 8, 64], help="images per request")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=3, help="seconds before each measurement")
    parser.add_argument("--max-benches", type=int, default=24, help="of the allocation's search; 1: worst-fit as it is")
    parser.add_argument("--scratch", type=Path, help="a folder that keeps the bundles (default: a temporary one)")
    arguments = parser.parse_args()
    if arguments.only_bundle and arguments.bundle is None:
        parser.error("--only-bundle needs --bundle")
    with tempfile.TemporaryDirectory(prefix="ensembleflow-benchmark-") as folder:
        scratch = (arguments.scratch or Path(folder)).resolve()
        inputs = [] if arguments.only_bundle else [_cifar_shaped(scratch, arguments)]
        if arguments.bundle:
            bundle = arguments.bundle.resolve()
            inputs.append(_input(bundle.parents[1], bundle.name.removeprefix("budget-"), scratch, arguments))
        contenders = _contenders(arguments)
        _print_machine(arguments)
        for given in inputs:
            results = Results()
            for number in range(1, arguments.rounds + 1):
                for contender in contenders:
                    _measure(contender, given, number, results, arguments, Path(folder))
            limits = _limits(given, arguments, Path(folder))
            print_tables(given.title, results, limits, arguments)


def _cifar_shaped(scratch: Path, arguments: argparse.Namespace) -> Input:
    study = scratch / STUDY
    if not (study / "selection").exists():
        script = Path(__file__).with_name("serving_ensemble.py")
        subprocess.run([sys.executable, str(script), str(scratch)], check=True, stdout=sys.stderr)
    return _input(study, "all", scratch, arguments)


def _input(study: Path, budget: str, scratch: Path, arguments: argparse.Namespace) -> Input:
    """The ensemble's bundles, made where they are not there, and the images and answers to measure with."""
    folder = scratch / "bundles" / f"{study.name}-{budget}"
    folder.mkdir(parents=True, exist_ok=True)
    bundles = {name: folder / name.replace(", ", "-").replace(" ", "-") for name in OURS}
    for name, path in bundles.items():
        if not path.exists():
            print(f"searching an allocation: {study.name}, budget {budget}, {name}", file=sys.stderr, flush=True)
            bundle_of(study, budget, OURS[name], arguments.max_benches, path)
    opened = open_bundle(bundles[SAME_ENGINE])
    models = opened.manifest.members
    return Input(
        title=f"{study.name}, budget {budget}: {len(models)} members",
        study=study,
        models=models,
        bundles=bundles,
        images=bundles[SAME_ENGINE] / "check" / "images.npy",
        expected=bundles[SAME_ENGINE] / "check" / "probabilities.npy",
        image_shape=opened.manifest.image_shape,
    )


def _contenders(arguments: argparse.Namespace) -> list[Contender]:
    found = []
    for name in arguments.contenders:
        if name in OURS:
            found.append(ours(name))
        elif name in PEERS:
            found += peers(name, arguments.clients)
        elif name == IN_TURN:
            found += [in_process(name, "in turn", threads=threads) for threads in (1, 2)]
        else:
            found.append(in_process(name, "dispatcher"))
    return found


def _measure(
    contender: Contender, given: Input, number: int, results: Results, arguments: argparse.Namespace, folder: Path
) -> None:
    """One contender's turn in a round: each request size; at half that load as well if it is ours."""
    common = {
        "images": str(given.images),
        "expected": str(given.expected),
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "warmup_seconds": arguments.warmup,
    }
    if contender.target is None:
        output = folder / "measured.json"
        output.unlink(missing_ok=True)
        bundle = str(given.bundles[SAME_ENGINE])
        settings = {**common, "sizes": arguments.sizes, "bundle": bundle, "output": str(output)}
        with running(contender, given, folder, settings) as process:
            if process.wait() != 0:
                raise SystemExit(f"{contender.title} failed")
        for size, measured in json.loads(output.read_text()).items():
            _record(results, contender, number, int(size), "closed", measured)
        return
    with started(contender, given, folder) as target:
        for size in arguments.sizes:
            settings = {**common, "target": target._asdict(), "request_images": size}
            measured = _load({**settings, "arrivals": "closed"}, folder)
            _record(results, contender, number, size, "closed", measured)
            for arrivals in ARRIVALS if contender.name in OURS else ():
                half = {**settings, "arrivals": arrivals, "images_per_second": measured["images_per_second"] / 2}
                _record(results, contender, number, size, arrivals, _load(half, folder))


def _load(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    file = folder / "load.json"
    file.write_text(json.dumps(settings))
    script = Path(__file__).with_name("serving_load.py")
    done = subprocess.run([sys.executable, str(script), str(file)], stdout=subprocess.PIPE, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _record(
    results: Results,
    contender: Contender,
    number: int,
    size: int,
    load: str,
    measured: dict[str, Any],
) -> None:
    told = f"{contender.title}, {size} images per request"
    tolerance = answer_tolerance(OURS.get(contender.name, ()))
    if measured["failures"] or not measured["worst_difference"] <= tolerance:
        raise SystemExit(f"{told}: wrong answers or none: {measured}")
    if measured["n_requests"] == 0:
        raise SystemExit(f"{told}: no request was answered in the time: raise --seconds")
    results.add(contender, size, load, measured)
    print(
        f"round {number}: {told}, {'closed loop' if load == 'closed' else f'half load, {load}'}: "
        f"{measured['images_per_second']:.0f} images/s, "
        f"p50 {measured['p50_ms']:.1f} ms, p99 {measured['p99_ms']:.1f} ms"
        + (f", clients {measured['client_cores']:.2f} cores" if "client_cores" in measured else ""),
        file=sys.stderr,
        flush=True,
    )


def _limits(given: Input, arguments: argparse.Namespace, folder: Path) -> dict[str, Limit]:
    """With TensorFlow, and with each member's fastest engine where one of the contenders may choose."""
    wanted: dict[str, tuple[str, ...]] = {"TensorFlow": OURS[SAME_ENGINE]}
    for contender, name in ((SEARCHED, "any engine"), (BFLOAT16, "any engine, bfloat16 too")):
        if contender in arguments.contenders:
            wanted[name] = OURS[contender]
    seconds = min(1.0, arguments.seconds / 10)
    return {
        name: measure_limit(given.members, engines, given.images, given.study, seconds, folder)
        for name, engines in wanted.items()
    }


def _print_machine(arguments: argparse.Namespace) -> None:
    machine = provenance()["machine"]
    packages = ("tensorflow-cpu", "onnxruntime", "openvino", "uvicorn", "numpy")
    versions: Iterable[str] = (f"{name} {metadata.version(name)}" for name in packages)
    print(f"    python {shlex.join(sys.argv)}\n")
    print(f"{machine['processor']}, {machine['cores']} cores; {platform.system()} {platform.release()};")
    print(f"Python {platform.python_version()}; {', '.join(versions)}; peers: {', '.join(PEERS.values())}.")
    print(
        f"{arguments.clients} clients, {arguments.rounds} rounds of {arguments.seconds:g} s after "
        f"{arguments.warmup:g} s of warm-up a measurement.",
        flush=True,
    )


if __name__ == "__main__":
    main()
