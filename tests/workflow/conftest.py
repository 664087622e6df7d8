"""One small study, run once from images to report; tests look at it, or work in copies of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.clone import Clone, edited
from support.killed_snakemake import Started, locks, unlock


@pytest.fixture(scope="session")
def untouched(copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which nothing has run. Not to be changed."""
    clone = Clone(tmp_path_factory.mktemp("untouched") / "ensembleflow")
    copy_repository(clone.folder)
    clone.write_config(edited({}))
    return clone


@pytest.fixture(scope="session")
def studies(untouched: Clone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, Clone]:
    """The same study in two clones: `finished` and `killed_and_resumed`, made side by side to save time."""
    finished, killed = (
        untouched.copy_to(tmp_path_factory.mktemp(name) / "ensembleflow") for name in ("finished", "killed")
    )
    with ThreadPoolExecutor() as pool:
        for run in [pool.submit(finish, finished), pool.submit(kill_and_resume, killed)]:
            run.result()
    return finished, killed


@pytest.fixture(scope="session")
def finished(studies: tuple[Clone, Clone]) -> Clone:
    """A clone in which everything has run, the search on one core. Not to be changed but for its config file."""
    return studies[0]


@pytest.fixture(scope="session")
def killed_and_resumed(studies: tuple[Clone, Clone]) -> Clone:
    """A clone in which the study ran on one core up to the predictions, its Snakemake killed within a trial."""
    return studies[1]


def finish(clone: Clone) -> None:
    clone.run("library", cores=1)
    clone.run()


def kill_and_resume(clone: Clone) -> None:
    with Started(clone.command("search", cores=1), clone.folder) as run:
        records = clone.study / "search/store"
        run.wait_for(lambda: any(json.loads(path.read_text())["epochs"] for path in records.glob("*/*/record.json")))
        assert unlock(clone) == ""
        assert locks(clone), "the lock of a Snakemake that runs is left alone"
        run.kill()
        assert run.orphans, "its jobs go on"

        refused = clone.snakemake("search")
        assert refused.returncode != 0
        assert "--unlock" in refused.stdout or "--rerun-incomplete" in refused.stdout
        clone.run("--unlock")
        predictions = clone.study.relative_to(clone.folder) / "library/predictions.h5"
        clone.run("search", str(predictions), "--rerun-incomplete", cores=1)


@pytest.fixture
def fresh_copy(untouched: Clone, tmp_path: Path) -> Clone:
    """A clone of one's own in which nothing has run."""
    return untouched.copy_to(tmp_path / "ensembleflow")


@pytest.fixture
def finished_copy(finished: Clone, tmp_path: Path) -> Clone:
    """A clone of one's own in which everything has run."""
    return finished.copy_to(tmp_path / "ensembleflow")
