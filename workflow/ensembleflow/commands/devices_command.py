"""`ensembleflow devices`: this machine's devices for the config."""

from __future__ import annotations

import argparse

import yaml

from ensembleflow.commands.number_arguments import whole_number
from ensembleflow.inference.devices import assign_cores
from ensembleflow.inference.machine import detect_devices

__all__ = ["add_command"]


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `devices` to the command line."""
    parser = subparsers.add_parser(
        "devices",
        help="print this machine's devices for the config",
        description="Print the GPUs and cores that this process may use, with their memory, as the config's blocks "
        "`allocation` and `resources`.",
    )
    parser.add_argument(
        "--cores-per-device",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="physical cores of a device without GPU (default 1)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    configs = detect_devices(arguments.cores_per_device)
    print("allocation:\n  devices:")
    for config, device in zip(configs, assign_cores(configs), strict=True):
        what = device.gpu_name or f"cores {', '.join(map(str, device.core_ids))}"
        entry = config.model_dump(exclude_none=True)
        print(f"    - {yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=200).strip()}  # {what}")
    print(f"  device_counts: [{len(configs)}]")
    n_cores, n_gpus = sum(config.cores for config in configs), sum(config.gpu is not None for config in configs)
    print(f"resources:\n  allocation: {{threads: {n_cores}, gpus: {n_gpus}}}")
    return 0
