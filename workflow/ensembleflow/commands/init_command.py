"""`ensembleflow init`: a first config for a folder of images, with the reasons and the time that it expects."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ensembleflow.child_process import ChildEndedError
from ensembleflow.commands.number_arguments import positive_number, whole_number
from ensembleflow.commands.progress_on_terminal import progress_on_terminal
from ensembleflow.config import SearchConfig
from ensembleflow.errors import ConfigError
from ensembleflow.first_config.check_split import check_split
from ensembleflow.first_config.choices import choose_dataset, choose_space, config_of
from ensembleflow.first_config.config_text import config_text
from ensembleflow.first_config.expected_time import ExpectedTime
from ensembleflow.first_config.fingerprint import Look, look_at_images
from ensembleflow.first_config.found_text import advice_lines, found_lines
from ensembleflow.first_config.image_size import LARGEST_ON_CORES, LARGEST_ON_GPU
from ensembleflow.first_config.length import FirstConfig, choose_length, fit_length
from ensembleflow.first_config.machine import CLUSTER_JOBS, Machine, slurm_cluster, this_machine
from ensembleflow.first_config.network_times import NetworkTimes, measure_networks
from ensembleflow.inference.machine import usable_cores
from ensembleflow.io import atomic_path, warn_of_other_work
from ensembleflow.models.gpu import visible_gpus
from ensembleflow.search.remaining import readable_duration

__all__ = ["add_command"]

_NOT_ASKED_FOR = "not measured (--no-measure)"


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `init` to the command line."""
    parser = subparsers.add_parser(
        "init",
        help="look at your images and write a first config for them",
        description="Look at a folder or a table of images (classes, sizes, kinds, copies, files that cannot be read), "
        "say what was found, and write a config that suits them and this machine or a cluster: each value with its "
        "reason, and the time that the run is expected to take, from three networks that are trained for a moment.",
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="a folder with one sub-folder of images per class, or such folders in train, valid and test; or a table, "
        "a CSV or Parquet file",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the config to write (default: FOLDER's name and .yaml, here)"
    )
    parser.add_argument(
        "--hours", type=positive_number, metavar="H", help="choose trials and epochs that are expected to fit into H"
    )
    parser.add_argument(
        "--image-size", type=whole_number(8, 1024), metavar="N", help="side in pixels, instead of the one that suits"
    )
    parser.add_argument("--cluster", choices=["slurm"], help="where it is to run, if not on this machine")
    parser.add_argument(
        "--jobs",
        type=whole_number(1),
        metavar="N",
        help=f"search jobs at once on the cluster (default: {CLUSTER_JOBS})",
    )
    parser.add_argument(
        "--gpus",
        type=whole_number(0, 1),
        metavar="N",
        help="GPUs of a search job, 0 or 1 (default: 1 where this machine has one, 0 on a cluster)",
    )
    parser.add_argument(
        "--no-measure", action="store_true", help="train no network; then no time is told, and --hours is refused"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    output = arguments.output or Path(f"{_name(arguments.folder)}.yaml")
    _refuse_what_cannot_be(arguments, output)
    machine = _machine(arguments)
    largest = LARGEST_ON_GPU if machine.gpus else LARGEST_ON_CORES
    with progress_on_terminal():
        look = look_at_images(arguments.folder, largest, len(usable_cores()), image_size=arguments.image_size)
        found = look.fingerprint
        print(f"found in {found.path}:")
        print("\n".join(found_lines(found)))
        dataset = choose_dataset(found, arguments.image_size is not None)
        check_split(look, config_of(dataset.choices).dataset)
        advice = advice_lines(found, dataset)
        print("\n".join([*(f"note: {line}" for line in advice)] or ["nothing stands out"]), flush=True)
        space = choose_space(found, machine)
        times, untold = _times(arguments, look, machine, config_of([*dataset.choices, *space]).search)
        if arguments.hours is None:
            first = choose_length(found, dataset, space, machine, times)
        else:
            if times is None:
                raise _no_time_for_hours(arguments.hours, untold)
            first = fit_length(found, dataset, space, machine, times, arguments.hours)
    command = _command(output, machine)
    head = _head(arguments, first, machine, command, untold)
    with atomic_path(output) as aside:
        aside.write_text(config_text(first.choices, head), encoding="utf-8")
    _print_end(output, first, machine, command, untold)
    return 0


def _name(folder: Path) -> str:
    path = folder.resolve()
    return path.stem if path.is_file() else path.name or "images"


def _refuse_what_cannot_be(arguments: argparse.Namespace, output: Path) -> None:
    if output.exists():
        raise ConfigError(
            "the config to write is there already",
            where=output,
            hint="name another file with --output, or remove this one",
        )
    if arguments.hours is not None and arguments.no_measure:
        raise _no_time_for_hours(arguments.hours, _NOT_ASKED_FOR)
    if arguments.jobs is not None and arguments.cluster is None:
        raise ConfigError(
            "jobs at once are a cluster's",
            where="--jobs",
            found=arguments.jobs,
            hint="add --cluster slurm; on this machine there are as many as cores",
        )


def _no_time_for_hours(hours: float, untold: str) -> ConfigError:
    return ConfigError(
        "hours cannot be turned into trials without a measured time",
        where="--hours",
        found=f"{hours:g} hours; {untold}",
        hint="leave --hours out, or type the command where the networks can be measured",
    )


def _machine(arguments: argparse.Namespace) -> Machine:
    if arguments.cluster is None:
        return this_machine(arguments.gpus)
    return slurm_cluster(arguments.jobs or CLUSTER_JOBS, arguments.gpus or 0)


def _times(
    arguments: argparse.Namespace, look: Look, machine: Machine, search: SearchConfig
) -> tuple[NetworkTimes | None, str]:
    """What was measured, or why nothing was."""
    if arguments.no_measure:
        return None, _NOT_ASKED_FOR
    if machine.cluster and machine.gpus and not visible_gpus():
        return None, "not measured: the jobs are to have a GPU, and there is none here"
    warn_of_other_work(usable_cores())
    try:
        return measure_networks(search, look.pixels, len(look.fingerprint.class_counts), machine), ""
    except ChildEndedError as error:
        return None, f"not measured: {error}"


def _command(output: Path, machine: Machine) -> str:
    how = ["--cores", "all"]
    if machine.cluster:
        how = ["--profile", "slurm", "--jobs", str(machine.jobs)]
    elif machine.gpus:
        how += ["--resources", "gpu=1"]
    return shlex.join(["snakemake", *how, "--configfile", str(output)])


def _expected(time: ExpectedTime | None, untold: str) -> str:
    if time is None:
        return f"expected time: {untold}"
    return (
        f"expected time: {readable_duration(time.seconds)}, of which the search takes "
        f"{readable_duration(time.search_seconds)} ({time.epochs:,} epochs; {time.stopped} trials stopped early) and "
        f"costs, allocations and the rest about {readable_duration(time.after_seconds)}"
    )


def _head(arguments: argparse.Namespace, first: FirstConfig, machine: Machine, command: str, untold: str) -> list[str]:
    folder, expected = " ".join(str(arguments.folder).split()), _expected(first.expected, untold)
    estimate = "" if untold else "That is an estimate: other programs, and jobs side by side, make it longer. "
    return [
        f"A first config for {folder}, by `ensembleflow init`. What does not stand here is as in config/config.yaml.",
        f"Made for {machine.name}. {expected[:1].upper()}{expected[1:]}.",
        f"{estimate}Type next, in this folder:",
        f"  {' '.join(command.split())}",
    ]


def _print_end(output: Path, first: FirstConfig, machine: Machine, command: str, untold: str) -> None:
    search = first.config.search
    print(
        f"chosen for {machine.name}:\n"
        f"  {search.n_trials} trials of at most {search.max_epochs} epochs, images of "
        f"{first.config.dataset.image_size}x{first.config.dataset.image_size} pixels; the file says why\n"
        f"  {_expected(first.expected, untold)}\n"
        f"written: {output}\n"
        "type next (with --dry-run it only says what it would do):\n"
        f"  {command}"
    )
