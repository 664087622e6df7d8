"""Commands of a user without a home, who may write into nothing of the installation."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from support.complete_study import write_study
from support.report_artefacts import STUDY
from support.system_user import SystemUser

ENSEMBLEFLOW = (sys.executable, "-m", "ensembleflow.cli")
LIBRARY = f"../results/{STUDY}/library"


@pytest.fixture(scope="module", params=[True, False], ids=["home does not exist", "no home, no name"])
def user(request: pytest.FixtureRequest) -> Iterator[SystemUser]:
    with SystemUser(named=request.param) as user:
        write_study(user.readable / "results")
        yield user


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("--version", "0."),
        (f"select {LIBRARY}/predictions.h5 --costs {LIBRARY}/costs.csv --budget 2x", "chosen"),
        ("report --results ../results --output report.html", "report.html"),
    ],
    ids=lambda text: text.partition(" ")[0],
)
def test_a_command_answers_and_says_nothing_of_what_it_cannot_keep(user: SystemUser, command: str, shown: str) -> None:
    done = user.run(*ENSEMBLEFLOW, *command.split())
    assert done.returncode == 0, done.stdout
    assert shown in done.stdout
    for word in ("Traceback", "Matplotlib", "mkdir", "arning", "numba"):
        assert word not in done.stdout
    assert "~" not in {path.name for path in user.folder.iterdir()}
