"""Faulty config files and command lines end in one message, before Snakemake itself reads them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ensembleflow.config.command_line import check_command_line
from ensembleflow.errors import ConfigError
from ensembleflow.io import snakemake_command
from support.clone import Clone

FILES = {
    "tab": b"search:\n\tn_trials: 3\n",
    "latin1": b'dataset: {path: "Bl\xe4tter"}\n',
    "utf16": "seed: 1\n".encode("utf-16"),
    "list": b"- seed: 1\n",
    "word": b"seed\n",
    "empty": b"",
    "comments": b"# seed: 1\n",
    "bracket": b"search: {n_trials: 3\n",
    "twice": b"seed: 1\nseed: 2\n",
    "nul": b"seed: 1\0\n",
    "tag": b"seed: !!python/name:os.system\n",
}


def snakemake(clone: Clone, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", clone.folder / "Snakefile", "-n", "--cores", "1", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def refused(clone: Clone, folder: Path, *arguments: str) -> str:
    done = snakemake(clone, folder, *arguments)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    assert done.stdout.count("\n") <= 12, done.stdout
    assert done.stdout.count("  where: ") == 1, done.stdout
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / f"{name}.yaml").write_bytes(content)
    (tmp_path / "good.yaml").write_text("seed: 3\n")
    (tmp_path / "folder.yaml").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", [*FILES, "absent", "folder"])
def test_a_faulty_file_ends_in_one_message(untouched: Clone, folder: Path, name: str) -> None:
    assert f"{name}.yaml" in refused(untouched, folder, "--configfile", "good.yaml", f"{name}.yaml")


@pytest.mark.parametrize("profile", ["--profile slurm", "--workflow-profile mine"])
def test_another_profile_leaves_the_check_or_takes_it_over(untouched: Clone, folder: Path, profile: str) -> None:
    shutil.copytree(untouched.folder / "profiles/default", folder / "mine")
    (folder / "slurm").symlink_to(untouched.folder / "profiles/slurm")
    assert "latin1.yaml" in refused(untouched, folder, *profile.split(), "--configfile", "latin1.yaml")


def test_without_the_default_profile_what_is_wrong_within_a_file_is_told(untouched: Clone, folder: Path) -> None:
    (folder / "unknown.yaml").write_text("sede: 3\n")
    said = refused(untouched, folder, "--workflow-profile", "none", "--configfile", "unknown.yaml")
    assert "unknown.yaml" in said
    assert "sede" in said


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (
            "--configfile good.yaml search library",
            "snakemake --cores all search library --configfile good.yaml",
        ),
        ("--config seed=3 search", "snakemake --cores all search --config seed=3"),
        ("--config search", "snakemake --cores all search --config seed=1"),
    ],
)
def test_a_target_after_an_option_that_takes_many_words_is_told_its_place(
    untouched: Clone, folder: Path, arguments: str, hint: str
) -> None:
    assert hint in refused(untouched, folder, *shlex.split(arguments))


@pytest.mark.parametrize(
    "arguments", ["search --configfile good.yaml", "--configfile good.yaml -- search", "search --config seed=3"]
)
def test_what_is_right_goes_on(untouched: Clone, folder: Path, arguments: str) -> None:
    done = snakemake(untouched, folder, *shlex.split(arguments))
    assert done.returncode == 0, done.stdout
    assert "results/digits-hyperband-s3/search/trials.csv" in done.stdout


def test_names_are_quoted_in_the_hint(tmp_path: Path) -> None:
    (tmp_path / "my study.yaml").write_text("seed: 3\n")
    with pytest.raises(ConfigError) as caught:
        check_command_line([tmp_path / "my study.yaml", "search"])
    assert caught.value.hint is not None
    assert shlex.split(caught.value.hint)[-4:] == ["all", "search", "--configfile", str(tmp_path / "my study.yaml")]


def test_a_run_notes_its_config_for_the_hints_of_commands(
    untouched: Clone, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "my study.yaml").write_text(
        "results_dir: out\ndataset: {name: a, source: arrays, path: broken.npz}\n", encoding="utf-8"
    )
    (folder / "broken.npz").write_bytes(b"")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "-s", untouched.folder / "Snakefile", "--cores", "1"),
            *("--until", "prepare_dataset", "--configfile", "my study.yaml", "--config", "seed=3"),
        ],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    snakefile = untouched.folder / "Snakefile"
    options = f"--snakefile {snakefile} --configfile 'my study.yaml' --config seed=3"
    assert snakemake_command("search", near=folder / "out") == f"snakemake {options} --cores all search"


def test_a_hint_in_a_jobs_message_names_its_config(fresh_copy: Clone) -> None:
    trials = fresh_copy.study / "search/trials.csv"
    trials.parent.mkdir(parents=True)
    trials.write_text("slot\n0\n")
    target = str((fresh_copy.study / "library/models.csv").relative_to(fresh_copy.folder))
    done = fresh_copy.snakemake(target, "--allowed-rules", "prepare_dataset", "rank_models")
    assert done.returncode == 1
    assert "snakemake --configfile study.yaml --cores all --force" in done.stdout, done.stdout
