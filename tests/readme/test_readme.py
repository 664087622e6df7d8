"""Every command of the README, typed as written in a fresh clone.

To end in minutes the clone's default config is the tiny one; `make test` runs one file; and what the reader runs
on their own images or cluster is planned (`--dry-run`) here, and run for real by tests/slurm.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ensembleflow.config import load_config

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]
PLANNED_ONLY = "--configfile my.yaml"


@pytest.fixture(scope="module")
def clone(copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("readme") / "ensembleflow"
    copy_repository(folder)
    # The environment that runs this test is the one that make would install.
    (folder / ".venv").symlink_to(Path(sys.prefix))
    tiny = load_config([REPOSITORY / "config/config.yaml", REPOSITORY / "config/tiny.yaml"])
    (folder / "config/config.yaml").write_text(yaml.safe_dump(tiny.model_dump(mode="json")), encoding="utf-8")
    (folder / "my.yaml").write_text(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1], encoding="utf-8")
    rng = np.random.default_rng(0)
    for name in ("oak", "beech"):
        (folder / "leaves" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "leaves" / name / f"{number}.png")
    yield folder
    shutil.rmtree(folder)


def type_in(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    shell = f"set -e; [ ! -e .activated ] || source .venv/bin/activate; {command}"
    environment = {**os.environ, "PYTEST_ARGS": "-q tests/library/test_ranking.py"}
    for stamp in (REPOSITORY / ".venv").glob("*.stamp"):
        stamp.touch()  # newer than the clone's lock: nothing to install
    return subprocess.run(
        ["bash", "-c", shell], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_readmes_commands_work_as_written(clone: Path) -> None:
    outputs = {}
    for command in COMMANDS:
        if command.startswith("source "):
            (clone / ".activated").touch()
        planned = command + " --dry-run" if PLANNED_ONLY in command else command
        if PLANNED_ONLY in command and "--profile slurm" in command and not shutil.which("sbatch"):
            continue
        done = type_in(clone, planned)
        assert done.returncode == 0, f"$ {planned}\n{done.stdout}\n{done.stderr}"
        outputs[command] = done.stdout + done.stderr

    first = outputs["make run"]
    assert re.search(r"search 6/6 trials", first), first
    assert re.search(r"best single .*\n.* 1x .*\n.* 2x ", first), first
    assert "report: results/report.html" in first
    assert "Nothing to be done" in outputs["snakemake --cores all"]
    assert "passed" in outputs["make test"]
    assert "search 6/6 trials" in outputs["ensembleflow progress"]
    assert "digit.png" in next(text for command, text in outputs.items() if command.startswith("ensembleflow predict"))
    assert (clone / "results/report.html").stat().st_size > 100_000


def test_the_readme_shows_the_slurm_command_that_the_slurm_tests_run() -> None:
    assert "snakemake --profile slurm" in README
    tested = (REPOSITORY / "tests/slurm/test_slurm_workflow.py").read_text(encoding="utf-8")
    assert '"--profile", "slurm"' in tested or "--profile slurm" in tested


def test_the_readmes_links_lead_to_files_that_exist() -> None:
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert targets
    assert [link for link in targets if not (REPOSITORY / link).exists()] == []


def test_the_readmes_table_has_the_columns_and_rows_that_the_command_prints() -> None:
    table = re.search(r"<!-- table: make run -->\n```\n(.*?)```", README, re.DOTALL)[1]
    for column in ("budget", "members", "cost", "valid", "test", "images/s"):
        assert column in table
    rows = [line.split()[0] for line in table.splitlines() if re.match(r" (best|baseline|\d)", line)]
    budgets = ["1x", "2x", "4x", "8x"]
    assert rows == ["best", "baseline", *budgets, "best", *budgets, "best", "baseline", *budgets]
