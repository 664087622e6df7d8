"""Which packages a command loads, and what it says where one of them is not installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from ensembleflow import cli

_RUN = """
import sys
hidden, *words = sys.argv[1:]
for name in hidden.split(","):
    sys.modules[name] = None  # importing it fails as if it was not installed
from ensembleflow.cli import main
code = main(words)
print("loaded:", *sorted({name.partition(".")[0] for name, module in sys.modules.items() if module}))
raise SystemExit(code)
"""
# What a serving host does without.
OF_THE_WORKFLOW = "dask,distributed,grpc,keras,matplotlib,numba,optuna,plotly,psycopg,rich,sklearn,scipy,smac,snakemake"


def run(hidden: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _RUN, hidden, *words]
    wide = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=wide)


@pytest.mark.parametrize("command", ["predict", "serve", "allocate", "export"])
def test_a_command_of_a_serving_host_needs_nothing_of_the_workflow(command: str) -> None:
    words = {"predict": ["no-image.png"], "allocate": ["--output", "a.json"], "export": ["--format", "onnx"]}.get(
        command, []
    )
    done = run(OF_THE_WORKFLOW, command, "no-such-bundle", *words)
    assert done.returncode == 1
    assert "needs a package" not in done.stderr
    assert "no-such-bundle" in done.stderr


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        (["select", "--help"], "rich", "workflow"),
        (["serve", "bundle"], "fastapi", "serve"),
    ],
)
def test_a_command_whose_packages_are_missing_names_the_extra(command: list[str], missing: str, extra: str) -> None:
    done = run(missing, *command)
    assert done.returncode == 1
    first, found, hint = done.stderr.splitlines()
    assert first == f"ensembleflow {command[0]} needs a package that is not installed"
    assert missing in found
    assert hint == f'  hint:     pip install "ensembleflow[{extra}]"'


def test_the_help_names_the_extra_of_each_command_that_cannot_run_here() -> None:
    done = run(OF_THE_WORKFLOW, "--help")
    assert done.returncode == 0, done.stderr
    helps = dict(re.findall(r"^    (\S+)\s+(.*)$", done.stdout, re.MULTILINE))
    names = {*cli._COMMANDS}
    assert names <= helps.keys()
    hint = 'pip install "ensembleflow[workflow]"'
    assert {name for name in names if hint in helps[name]} == names - {*cli._SERVING}


def test_a_command_loads_no_other_commands_packages() -> None:
    loaded = run("none", "devices").stdout.splitlines()[-1].split()
    assert "ensembleflow" in loaded
    assert not {*OF_THE_WORKFLOW.split(","), "fastapi", "uvicorn", "tensorflow"} & {*loaded}


def test_no_command_loads_what_trains_or_draws_to_read_its_options() -> None:
    code = "import sys\nfrom ensembleflow.cli import make_parser\nmake_parser()\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert not {"tensorflow", "keras", "matplotlib", "plotly", "sqlalchemy"} & {*done.stdout.split()}


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_a_command_is_added_by_the_module_of_its_name(name: str) -> None:
    (choices,) = [action.choices for action in cli.make_parser(name)._actions if action.choices]
    assert [*choices] == [name]


def test_a_missing_module_of_the_package_is_a_fault_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensembleflow.commands.select_command", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["select"])
