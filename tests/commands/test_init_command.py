"""`ensembleflow init`: what it prints, writes and refuses; and Snakemake takes what it wrote."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ensembleflow.child_process import ChildEndedError
from ensembleflow.cli import main
from ensembleflow.commands import init_command
from ensembleflow.config import load_config
from ensembleflow.first_config.network_times import MeasuredNetwork, NetworkTimes
from support.clone import REPOSITORY, Clone
from support.made_images import write_class_folders

DEFAULT = REPOSITORY / "config/config.yaml"
TIMES = NetworkTimes(4.0, (MeasuredNetwork(1_000_000, 2.0, 0.002, 0.0005, 0.0005),))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command is typed, with three unbalanced classes in `my trees`."""
    write_class_folders(tmp_path / "my trees", {"oak": 30, "beech": 9, "ash": 12})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the networks had been measured."""
    monkeypatch.setattr(init_command, "measure_networks", lambda *_: TIMES)


def test_a_config_is_written_that_snakemake_takes(
    here: Path, capsys: pytest.CaptureFixture[str], copy_repository
) -> None:
    shutil.copy(here / "my trees/oak/000.png", here / "my trees/oak/copy.png")
    (here / "my trees/ash/broken.png").write_bytes(b"")
    assert main(["init", "my trees", "--gpus", "0"]) == 0
    printed = capsys.readouterr().out
    assert "3, of 9 (beech) to 31 images (oak): 3.4 times as many" in printed
    assert "oak/000.png = oak/copy.png" in printed
    assert "my trees/ash/broken.png" in printed
    assert re.search(r"expected time: [0-9]+ (s|min|h)", printed)
    command = "snakemake --cores all --configfile 'my trees.yaml'"
    assert printed.splitlines()[-1] == f"  {command}"
    text = Path("my trees.yaml").read_text(encoding="utf-8")
    assert f"#   {command}" in text.splitlines()
    config = load_config([DEFAULT, "my trees.yaml"])
    assert (config.dataset.name, config.dataset.path, config.dataset.image_size) == ("my_trees", "my trees", 16)
    assert (config.dataset.duplicates, config.dataset.unreadable_images) == ("together", "skip")
    assert (config.search.metric, config.search.class_weights) == ("macro_f1_error", "balanced")

    clone = Clone(here / "clone", "my trees.yaml")
    copy_repository(clone.folder)
    clone.write_config(text)
    shutil.copytree("my trees", clone.folder / "my trees")
    planned = clone.run("--dry-run")
    assert re.search(r"^make_bundle +3$", planned, re.MULTILINE)


def test_a_table_with_parts_keeps_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = sorted(Path("my trees").rglob("*.png"))
    parts = ["train", "train", "valid", "test"]
    rows = [f"{each},{each.parent.name},{parts[number % 4]}" for number, each in enumerate(images)]
    Path("scans.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    assert main(["init", "scans.csv", "--no-measure"]) == 0
    assert "26 train, 13 valid, 12 test" in capsys.readouterr().out
    text = Path("scans.yaml").read_text(encoding="utf-8")
    assert "fraction" not in text
    assert "estimate" not in text
    assert load_config([DEFAULT, "scans.yaml"]).dataset.source == "table"


def test_hours_choose_trials_and_epochs(here: Path, measured: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "my trees", "--hours", "2", "--gpus", "0", "--output", "two/hours.yaml"]) == 0
    assert "written: two/hours.yaml" in capsys.readouterr().out
    assert "fit into 2 hours" in Path("two/hours.yaml").read_text(encoding="utf-8")
    assert load_config([DEFAULT, "two/hours.yaml"]).search.n_trials >= 8


def test_a_cluster_gets_its_command_and_resources(
    here: Path, measured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "my trees", "--cluster", "slurm", "--jobs", "40", "--output", "c.yaml"]) == 0
    assert capsys.readouterr().out.endswith("  snakemake --profile slurm --jobs 40 --configfile c.yaml\n")
    config = load_config([DEFAULT, "c.yaml"])
    assert (config.search.n_trials, config.resources.search.mem_mb) == (160, 4000)


def test_without_measuring_no_time_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "my trees", "--no-measure", "--image-size", "24", "--output", "own.yaml"]) == 0
    assert "expected time: not measured (--no-measure)" in capsys.readouterr().out
    assert load_config([DEFAULT, "own.yaml"]).dataset.image_size == 24
    assert "# as asked for" in Path("own.yaml").read_text(encoding="utf-8")


def test_where_measuring_fails_the_config_is_written_and_says_so(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> NetworkTimes:
        raise ChildEndedError("its process was killed by SIGKILL (out of memory?)")

    monkeypatch.setattr(init_command, "measure_networks", killed)
    assert main(["init", "my trees"]) == 0
    assert "not measured: its process was killed by SIGKILL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "first_line"),
    [
        (["no-such-folder"], "the folder of images cannot be read"),
        (["my trees/oak"], "the folder of images has fewer than two classes"),
        (["note.txt"], "a file is no folder of images"),
        (["table.csv"], "the table of images lacks a column"),
        (["few"], "classes are absent from a split"),
        (["empty"], "the folder of images has fewer than two classes"),
        (["broken"], "2 images cannot be read"),
        (["my trees", "--output", "note.txt"], "the config to write is there already"),
        (["my trees", "--jobs", "4"], "jobs at once are a cluster's"),
        (["my trees", "--hours", "0.001"], "the hours are too few for the smallest search"),
        (["my trees", "--hours", "1", "--no-measure"], "hours cannot be turned into trials without a measured time"),
        (["$NOT_SET"], "the config is refused"),
    ],
)
def test_a_mistake_is_told_in_one_message_and_nothing_is_written(
    here: Path, measured: None, capsys: pytest.CaptureFixture[str], words: list[str], first_line: str
) -> None:
    Path("note.txt").write_text("mine", encoding="utf-8")
    Path("table.csv").write_text("file,label\n", encoding="utf-8")
    Path("empty").mkdir()
    write_class_folders(Path("few"), {"a": 9, "b": 2})
    write_class_folders(Path("$NOT_SET"), {"a": 9, "b": 9})
    for name in ("a", "b"):
        Path("broken", name).mkdir(parents=True)
        Path("broken", name, "1.png").write_bytes(b"")
    before = sorted(Path().rglob("*"))
    assert main(["init", *words]) == 1
    assert first_line in capsys.readouterr().err.splitlines()
    assert sorted(Path().rglob("*")) == before
    assert Path("note.txt").read_text(encoding="utf-8") == "mine"


def test_large_oblong_images_are_noted(here: Path, measured: None, capsys: pytest.CaptureFixture[str]) -> None:
    for each in Path("my trees").rglob("*.png"):
        Image.open(each).resize((900, 300)).save(each)
    assert main(["init", "my trees", "--gpus", "0"]) == 0
    printed = capsys.readouterr().out
    assert "at 64x64, details of less than 14 pixels vanish" in printed
    assert "far from square" in printed
