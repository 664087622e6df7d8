"""The option `--configfile` of commands, and the config of the run that it names."""

from __future__ import annotations

import argparse
from pathlib import Path

from ensembleflow.config import Config, load_config
from ensembleflow.io.snakemake_command import set_config_options

__all__ = ["add_configfile", "load_run_config", "study_folder"]


def add_configfile(parser: argparse.ArgumentParser) -> None:
    """Add the option to a command."""
    parser.add_argument(
        "--configfile", type=Path, nargs="+", default=[], help="the run's config files, over config/config.yaml"
    )


def load_run_config(arguments: argparse.Namespace) -> Config:
    """The merged config; hints of this process then name its files.

    Raises:
        ConfigError: a file is missing or faulty, or the merged config is refused.
    """
    default = [path for path in [Path("config/config.yaml")] if path.exists()]
    config = load_config([*default, *arguments.configfile])
    if arguments.configfile:
        set_config_options(arguments.configfile)
    return config


def study_folder(config: Config) -> Path:
    """`{results_dir}/{study}`, where the config's study lies."""
    return Path(config.results_dir) / config.study
