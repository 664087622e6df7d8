"""The command to type in hints: with the config files of the run, for without them it names another study."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ensembleflow.config.storage_url import without_passwords
from ensembleflow.errors import StorageError
from ensembleflow.io.atomic import write_json

__all__ = ["CONFIG_OPTIONS", "record_config_options", "set_config_options", "snakemake_command"]

CONFIG_OPTIONS = Path("logs", "config_options.json")
"""Where a run notes its options, relative to the folder of results."""

_VARIABLE = "ENSEMBLEFLOW_CONFIG_OPTIONS"  # inherited by a run's jobs


@dataclass(frozen=True)
class _Options:
    """What a Snakemake command says of the config.

    Attributes:
        snakefile: absolute; empty where it is the one that Snakemake finds by itself.
        configfiles: absolute, in the order in which they override each other.
        config: texts `key=value`.
    """

    snakefile: str = ""
    configfiles: tuple[str, ...] = ()
    config: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> _Options:
        """None of them, where the text is damaged."""
        try:
            values = json.loads(text)
            return cls(str(values["snakefile"]), tuple(values["configfiles"]), tuple(values["config"]))
        except (KeyError, TypeError, ValueError):
            return cls()

    def words(self) -> list[str]:
        snakefile = ["--snakefile", _as_typed(self.snakefile)] if self.snakefile else []
        configfiles = ["--configfile", *map(_as_typed, self.configfiles)] if self.configfiles else []
        return [*snakefile, *configfiles, *(["--config", *self.config] if self.config else [])]


def snakemake_command(
    *words: str | Path, near: str | Path | None = None, how: Sequence[str] = ("--cores", "all")
) -> str:
    """The command that makes targets with this run's config, quoted for the shell.

    Args:
        words: targets and options, the last words.
        near: an artefact or folder, whose run's options are those where this process knows none.
        how: options that stand before the words.
    """
    text = os.environ.get(_VARIABLE)
    if text is None and near is not None:
        place = Path(near).absolute()
        text = next(filter(None, map(_noted, (place, *place.parents))), None)
    options = _Options.from_json(text or "{}")
    # `how` ends the words after --configfile, among which a target would be taken for a file.
    return shlex.join(["snakemake", *options.words(), *how, *map(str, words)])


def set_config_options(
    configfiles: Sequence[str | Path], config: Sequence[str] = (), snakefile: str | Path | None = None
) -> None:
    """Have the commands of this process, and of those that it starts, name these options."""
    found = {"Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile"}
    own = "" if snakefile is None or _as_typed(snakefile) in found else str(Path(snakefile).absolute())
    options = _Options(own, tuple(str(Path(path).absolute()) for path in configfiles), tuple(without_passwords(config)))
    os.environ[_VARIABLE] = json.dumps(asdict(options))


def record_config_options(results_dir: str | Path) -> None:
    """Note this process's options beside the results, for commands that are typed later; where it can be written."""
    with suppress(OSError, StorageError):
        path = Path(results_dir) / CONFIG_OPTIONS
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, json.loads(os.environ[_VARIABLE]))


def _noted(results_dir: Path) -> str:
    try:
        return (results_dir / CONFIG_OPTIONS).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _as_typed(path: str | Path) -> str:
    absolute = Path(path).absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)
