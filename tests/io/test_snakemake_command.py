"""Commands in hints name the run that they are about."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.cli import get_argument_parser

from ensembleflow.errors import ArtefactError
from ensembleflow.io.read import read_json
from ensembleflow.io.snakemake_command import (
    CONFIG_OPTIONS,
    record_config_options,
    set_config_options,
    snakemake_command,
)

PACKAGE = Path(__file__).resolve().parents[2] / "workflow/ensembleflow"
VARIABLE = "ENSEMBLEFLOW_CONFIG_OPTIONS"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that it is restored
    monkeypatch.delenv(VARIABLE)
    monkeypatch.chdir(tmp_path)


def test_a_run_of_the_defaults_has_the_plain_command() -> None:
    assert snakemake_command("search") == "snakemake --cores all search"
    set_config_options([], [], Path("Snakefile").absolute())
    assert snakemake_command("search") == "snakemake --cores all search"


def test_the_options_of_the_run_stand_before_the_target(tmp_path: Path) -> None:
    set_config_options([tmp_path / "my study.yaml", "/else/b.yaml"], ["seed=1", "search={n_trials: 8}"], "/x/Snakefile")
    assert snakemake_command("search") == (
        "snakemake --snakefile /x/Snakefile --configfile 'my study.yaml' /else/b.yaml "
        "--config seed=1 'search={n_trials: 8}' --cores all search"
    )


NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1).map("x{}".format)


@given(st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=2), NAMES)
def test_what_a_shell_and_snakemake_read_are_the_same_words(files: list[str], values: list[str], target: str) -> None:
    entries = [f"results_dir={value}" for value in values]
    set_config_options([Path.cwd() / name for name in files], entries)
    words = shlex.split(snakemake_command(target))
    arguments = get_argument_parser().parse_args(words[1:])
    assert list(map(str, arguments.configfile)) == files
    assert (arguments.config or []) == entries
    assert list(arguments.targets) == [target]


def test_a_command_typed_later_asks_the_results(tmp_path: Path) -> None:
    set_config_options([tmp_path / "my.yaml"], ["seed=1"])
    record_config_options(tmp_path / "results")
    del os.environ[VARIABLE]
    expected = "snakemake --configfile my.yaml --config seed=1 --cores all library"
    for place in ("results", "results/study/library/costs.csv", "results/nowhere/at/all"):
        assert snakemake_command("library", near=tmp_path / place) == expected
    assert snakemake_command("library", near=tmp_path / "other") == "snakemake --cores all library"
    with pytest.raises(ArtefactError, match="missing") as caught:
        read_json(tmp_path / "results/study/selection/budget-1x.json")
    assert "--configfile my.yaml --config seed=1 --cores all --force" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"snakefile": 1}', '{"configfiles": ["a"]}', "\udcff"])
def test_a_damaged_note_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG_OPTIONS).parent.mkdir(parents=True)
    (tmp_path / CONFIG_OPTIONS).write_text(text, encoding="utf-8", errors="surrogateescape")
    assert snakemake_command("search", near=tmp_path) == "snakemake --cores all search"


def test_no_password_is_noted(tmp_path: Path) -> None:
    set_config_options([], ["search={storage: 'postgresql://ann:secret@host/db'}"])
    record_config_options(tmp_path)
    assert "secret" not in (tmp_path / CONFIG_OPTIONS).read_text() + snakemake_command()
    assert json.loads((tmp_path / CONFIG_OPTIONS).read_text())["config"]


def test_what_cannot_be_noted_stops_no_run(tmp_path: Path) -> None:
    set_config_options([])
    (tmp_path / "logs").touch()
    record_config_options(tmp_path)


def test_no_message_of_the_package_spells_the_command_itself() -> None:
    may = {"config/render.py", "io/snakemake_command.py"}  # the manual of the config
    spelled = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in sorted(PACKAGE.rglob("*"))
        if path.suffix in (".py", ".j2") and str(path.relative_to(PACKAGE)) not in may
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"snakemake --\w", line)
    ]
    assert spelled == []


@pytest.mark.parametrize(
    "command",
    ["progress", "accounting", "plan", "summary --results r", "report --results r"],
)
def test_every_command_names_the_config_of_its_run(tmp_path: Path, command: str) -> None:
    (tmp_path / "my study.yaml").write_text("results_dir: r\n")
    set_config_options([tmp_path / "my study.yaml"])
    record_config_options(tmp_path / "r")
    words = shlex.split(command)
    given = [] if "--results" in words else ["--configfile", "my study.yaml"]
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "ensembleflow.cli", *words, *given],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(PACKAGE.parent)},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "snakemake --configfile 'my study.yaml' --cores all" in done.stderr
