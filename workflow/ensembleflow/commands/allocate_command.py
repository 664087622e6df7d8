"""`ensembleflow allocate`: a bundle's allocation for the machine at hand, from the one that it came with."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ensembleflow.allocation import Ensemble, Tuning, log_tuning, search_table, tune_allocation
from ensembleflow.allocation.benches.score import OBJECTIVES
from ensembleflow.commands.number_arguments import whole_number
from ensembleflow.commands.progress_on_terminal import progress_on_terminal
from ensembleflow.config import AllocationConfig, load_config, parse_config
from ensembleflow.inference import detect_devices
from ensembleflow.io import write_csv, write_json
from ensembleflow.models.engines import ENGINES
from ensembleflow.serving.bundle import Bundle, check_answers, open_bundle

__all__ = ["add_command", "allocate_bundle"]

_COUNT = whole_number(1)


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `allocate` to the command line."""
    parser = subparsers.add_parser(
        "allocate",
        help="tune a bundle's allocation on this machine",
        description="Profile a bundle's members on this machine's devices, start from the bundle's own allocation as "
        "far as its devices are there, and improve it by measuring: after a move to another machine, or after a "
        "device was lost or added. For `ensembleflow serve BUNDLE --allocation FILE`.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the allocation (JSON)")
    parser.add_argument(
        "--devices",
        type=Path,
        metavar="FILE",
        help="YAML with a block `allocation`, as `ensembleflow devices` prints: its devices, and whatever else it "
        "sets; with `bench: simulated` they need not be here (default: this machine's GPUs and cores)",
    )
    parser.add_argument("--objective", choices=OBJECTIVES, help="what to improve (throughput)")
    parser.add_argument("--request-images", type=_COUNT, metavar="N", help="images per request, for latencies (1)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="what may compute a member")
    parser.add_argument("--batch-sizes", type=_COUNT, nargs="+", metavar="N", help="batch sizes to choose from")
    parser.add_argument("--max-replicas", type=_COUNT, metavar="N", help="devices that a member may run on at once")
    parser.add_argument("--max-benches", type=_COUNT, metavar="N", help="benches of the whole ensemble")
    parser.add_argument("--bench-images", type=_COUNT, metavar="N", help="images predicted in one bench repeat")
    parser.add_argument("--search", type=Path, metavar="FILE", help="also write every allocation benched (CSV)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    bundle = open_bundle(arguments.bundle)
    config = _config(arguments, bundle)
    with progress_on_terminal():
        tuning = allocate_bundle(bundle, config)
        log_tuning(str(arguments.bundle), tuning)
    if arguments.search:
        write_csv(arguments.search, search_table(tuning.found, tuning.bench))
    result = tuning.result(study=bundle.manifest.study, budget=bundle.manifest.budget)
    write_json(arguments.output, result)
    return 0


def allocate_bundle(bundle: Bundle, config: AllocationConfig) -> Tuning:
    """Tune a bundle's allocation on the config's devices, starting from its own.

    If the benches are real, the ensemble has to answer the bundle's check images as it should in the allocation found.

    Raises:
        AllocationError: a member can run nowhere or fits on no device, or no allocation could run.
        BundleError: the answers differ from those that the bundle was made with.
        EngineError: an engine is not installed, or a member cannot be converted for it.
    """
    images = np.resize(bundle.check_images(), (config.bench_images, *bundle.manifest.image_shape))
    ensemble = Ensemble(
        bundle.members, images, len(bundle.class_names), stop_rule=bundle.stop_rule, shares=bundle.shares
    )
    return tune_allocation(
        ensemble,
        config,
        title=str(bundle.path),
        old=bundle.allocation,
        check=lambda pipeline: check_answers(bundle, pipeline),
    )


def _config(arguments: argparse.Namespace, bundle: Bundle) -> AllocationConfig:
    if arguments.devices:
        config = load_config([arguments.devices]).allocation
    else:
        devices = detect_devices()
        config = AllocationConfig(devices=devices, device_counts=[len(devices)])
    names = ("objective", "request_images", "engines", "batch_sizes", "max_replicas", "max_benches", "bench_images")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    # What the bundle's allocation has must stay possible.
    engines = dict.fromkeys((*(config.engines or ()), *(each.engine for each in bundle.allocation)))
    batch_sizes = dict.fromkeys((*config.batch_sizes, *(each.batch_size for each in bundle.allocation)))
    values = config.model_dump(mode="json") | {"engines": list(engines), "batch_sizes": list(batch_sizes)} | given
    return parse_config({"allocation": values}).allocation
