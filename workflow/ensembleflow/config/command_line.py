"""Snakemake's command line, as far as the config is concerned, checked before Snakemake itself reads any of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ensembleflow.config.files import read_file
from ensembleflow.errors import ConfigError

__all__ = ["check_command_line"]

_ENTRY = re.compile(r"[A-Za-z_][\w-]*\w=.*", re.DOTALL)  # what Snakemake takes
_CONFIG_SUFFIXES = (".yaml", ".yml", ".json")


def check_command_line(configfiles: Sequence[str | Path], entries: Sequence[str] = ()) -> None:
    """Refuse what Snakemake would end in a traceback for.

    Args:
        configfiles: the words after `--configfile`.
        entries: the words after `--config`.

    Raises:
        ConfigError: a file is missing, unreadable, no YAML or no mapping; an entry is no `key=value`; or one of them
            is a target, which stood behind these options.
    """
    for number, path in enumerate(configfiles):
        try:
            _check_file(path)
        except ConfigError as error:
            if number > 0 and Path(path).suffix not in _CONFIG_SUFFIXES:
                targets = [each for each in configfiles[1:] if Path(each).suffix not in _CONFIG_SUFFIXES]
                files = [each for each in configfiles if each not in targets]
                error.hint = _targets_first("--configfile", targets, files)
            raise
    for entry in entries:
        if not _ENTRY.fullmatch(entry):
            targets = [each for each in entries if not _ENTRY.fullmatch(each)]
            settings = [each for each in entries if each not in targets]
            raise ConfigError(
                "what follows --config sets no key",
                where=f"command line (--config): {entry}",
                found=f"no key=value in {entry}",
                expected="key=value, such as seed=1",
                hint=_targets_first("--config", targets, settings or ["seed=1"]),
            )


def _check_file(path: str | Path) -> None:
    # Snakemake, unlike `read_file`, takes no file without any key.
    if not read_file(path):
        raise ConfigError(
            "the config file is not a mapping",
            where=path,
            found="no key",
            expected="`key: value` lines",
            hint="leave --configfile out to run with the defaults",
        )


def _targets_first(option: str, targets: Sequence[str | Path], values: Sequence[str | Path]) -> str:
    command = ["snakemake", "--cores", "all", *targets, option, *values]
    return f"a target stands before {option}, which takes every word after it: {shlex.join(map(str, command))}"
