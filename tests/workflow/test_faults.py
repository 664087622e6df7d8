"""What goes wrong ends with one message and no traceback, harms nothing that is finished, and can be mended."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from support.clone import Clone, edited


def refuse(clone: Clone, *arguments: str, cores: int = 1, says: tuple[str, ...]) -> str:
    """Run Snakemake, which must fail with one message that says all that."""
    done = clone.snakemake(*arguments, cores=cores)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    assert done.stdout.count("\n  hint: ") == 1, done.stdout
    for text in says:
        assert text in done.stdout, done.stdout
    return done.stdout


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Content and time of every file, but for logs and benchmarks."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    shown = [path for path in files if path.relative_to(folder).parts[0] not in ("logs", "benchmarks")]
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in shown}


# ---- Refused before anything runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ({"search.n_trials": 1}, ("`n_trials` must be at least `trials_per_job`", "search.n_trials 1")),
        ({"library.keep_fraction": 0.1}, ("must be at least 1 model", "library.keep_fraction 0.1")),
        ({"results_dir": "study.yaml/results"}, ("the results folder cannot be written", "study.yaml is not a folder")),
    ],
    ids=["fewer trials than a job holds", "no model kept", "the results folder below a file"],
)
def test_an_impossible_config_is_refused_at_once(
    fresh_copy: Clone, edits: dict[str, object], says: tuple[str, ...]
) -> None:
    fresh_copy.write_config(edited(edits))
    output = refuse(fresh_copy, says=says)
    assert "Building DAG" not in output
    assert not fresh_copy.results.exists()


# ---- One stage fails -------------------------------------------------------------------------------------------------


def test_a_budget_below_the_cheapest_model(finished_copy: Clone) -> None:
    before = contents(finished_copy.results)
    finished_copy.write_config(edited({"selection.budgets": ["1x", "2x", "0.0000001"]}))
    refuse(finished_copy, "selection", says=("no usable model fits the budget", "trial-0000"))
    assert contents(finished_copy.results) == before
    finished_copy.write_config(edited({"selection.budgets": ["1x", "2x", "3x"]}))
    assert finished_copy.plan("selection") == {"select_ensemble budget=3x", "collect_ensembles", "compare_methods"}


@pytest.fixture
def leaves(fresh_copy: Clone) -> Clone:
    """A clone with a study of a folder of images: ten of an oak, two of a beech."""
    for name, n_images in (("oak", 10), ("beech", 2)):
        add_images(fresh_copy.folder / "leaves" / name, range(n_images))
    dataset = {"name": "leaves", "source": "image_folder", "path": "leaves", "image_size": 8}
    fresh_copy.write_config(edited({"dataset": dataset}))
    return fresh_copy


def add_images(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (10, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_a_class_absent_from_a_split(leaves: Clone) -> None:
    target = "results/datasets/leaves.h5"
    refuse(leaves, target, says=("classes are absent from a split", "beech (2 images) is not in train"))
    assert not (leaves.folder / target).exists()
    add_images(leaves.folder / "leaves/beech", range(2, 10))
    leaves.run(target)
    assert leaves.plan(target) == set()
    add_images(leaves.folder / "leaves/oak", range(10, 11))
    assert leaves.plan(target) == {"prepare_dataset"}


def test_names_that_are_no_text_are_told(leaves: Clone) -> None:
    target = "results/datasets/leaves.h5"
    beech = os.fsencode(leaves.folder / "leaves/beech")
    os.rename(beech, beech + b"\xe9")
    refuse(leaves, target, says=("names of classes are not in UTF-8", r"b'beech\xe9'"))
    os.rename(beech + b"\xe9", beech)
    Path(os.fsdecode(beech + b"/\xe9.png")).touch()
    add_images(leaves.folder / "leaves/beech", range(2, 10))
    refuse(leaves, target, says=("an image cannot be read", r"beech/\udce9.png"))


def test_images_that_are_gone_do_not_take_their_dataset_with_them(leaves: Clone) -> None:
    target = "results/datasets/leaves.h5"
    add_images(leaves.folder / "leaves/beech", range(2, 10))
    leaves.run(target)
    shutil.rmtree(leaves.folder / "leaves")
    done = leaves.snakemake(target)
    assert done.returncode != 0
    assert re.search(r"Missing input files for rule prepare_dataset:(.|\n)*leaves\n", done.stdout), done.stdout
    assert (leaves.folder / target).exists()


# ---- A broken artefact -----------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def raise_schema_version(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99


FROM_PREDICTIONS = {
    *("cache_predictions", "measure_costs"),
    *("select_ensemble budget=1x", "select_ensemble budget=2x", "collect_ensembles", "compare_methods"),
}

BREAKAGES = pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (truncate, ("an artefact is truncated or damaged", "truncated file")),
        (raise_schema_version, ("an artefact follows another schema", "version 99", "version 1")),
    ],
    ids=["truncated", "of another schema version"],
)


@BREAKAGES
def test_a_broken_dataset(finished_copy: Clone, breaks: Callable[[Path], None], says: tuple[str, ...]) -> None:
    before = contents(finished_copy.study)
    breaks(finished_copy.results / "datasets/digits.h5")
    refuse(finished_copy, "search", says=(*says, "results/datasets/digits.h5"))
    # Snakemake clears the outputs of the job that it starts; what they were made from stays.
    cleared = (("search", "trials", "job-0.json"), ("search", "models", "job-0"))
    kept = {name: file for name, file in before.items() if name.parts[:3] not in cleared}
    assert contents(finished_copy.study) == kept


def test_a_mended_dataset_trains_nothing_again(finished_copy: Clone) -> None:
    trials = (finished_copy.study / "search/trials.csv").read_bytes()
    (finished_copy.results / "datasets/digits.h5").unlink()
    (finished_copy.study / "search/trials/job-0.json").unlink()
    output = finished_copy.run("search", "--forcerun", "freeze_tables")
    assert "rule prepare_dataset" in output
    assert not re.search(r"^search \d/\d trials", output, re.MULTILINE), "no trial may be trained again"
    assert (finished_copy.study / "search/trials.csv").read_bytes() == trials


@BREAKAGES
def test_broken_predictions(finished_copy: Clone, breaks: Callable[[Path], None], says: tuple[str, ...]) -> None:
    predictions = finished_copy.study / "library/predictions.h5"
    breaks(predictions)
    refuse(finished_copy, "selection", says=(*says, "library/predictions.h5"))
    predictions.unlink()
    assert finished_copy.plan("selection") == FROM_PREDICTIONS


def test_a_deleted_artefact_is_made_again(finished_copy: Clone) -> None:
    (finished_copy.study / "library/predictions.h5").unlink()
    assert finished_copy.plan("library", "selection") == FROM_PREDICTIONS
    assert finished_copy.plan() >= FROM_PREDICTIONS


def test_weights_that_are_gone_are_named_and_come_back_without_training(finished_copy: Clone) -> None:
    finished_copy.write_config(edited({"library.keep_fraction": 1.0}))
    (finished_copy.study / "search/models/job-1/trial-00003.keras").unlink()
    refuse(finished_copy, "library", says=("a kept model's weights are missing", "trial-00003.keras", "search/models"))
    shutil.rmtree(finished_copy.study / "search/models")
    output = finished_copy.run("results/digits-hyperband-s0/search/models/job-1")
    assert not re.search(r"^search \d/\d trials", output, re.MULTILINE)
    assert (finished_copy.study / "search/models/job-1/trial-00003.keras").exists()


# ---- A disk that cannot be written -----------------------------------------------------------------------------------


class SmallDisk:
    """A disk of a few pages, mounted where the results go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, options: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)], check=True, capture_output=True
        )

    def leave_free(self, n_bytes: int) -> None:
        used = os.statvfs(self.folder)
        size = (used.f_blocks - used.f_bfree) * used.f_frsize + n_bytes
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True, capture_output=True)

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk")
    disk.folder.mkdir()
    try:
        disk.mount("size=64m")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"mounting a small disk takes root: {getattr(error, 'stderr', error)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


def test_a_read_only_disk(fresh_copy: Clone, small_disk: SmallDisk) -> None:
    small_disk.make_read_only()
    fresh_copy.write_config(edited({"results_dir": f"{small_disk.folder}/results"}))
    refuse(fresh_copy, says=("the results folder cannot be written", f"{small_disk.folder} is not writable"))


def test_a_full_disk(finished: Clone, small_disk: SmallDisk, tmp_path: Path) -> None:
    finished.write_config(edited({}))
    clone = finished.copy_to(tmp_path / "ensembleflow")
    shutil.copytree(clone.results, small_disk.folder / "results", symlinks=True)
    shutil.rmtree(clone.results)
    clone.results.symlink_to(small_disk.folder / "results")
    assert clone.plan() == set()

    # The exported models need more.
    small_disk.leave_free(40_000)
    before = contents(clone.study / "search") | contents(clone.study / "selection")
    clone.write_config(edited({"library.keep_fraction": 1.0}))
    refuse(clone, "library", says=("a folder could not be written", "library/exported", "No space left on device"))
    assert contents(clone.study / "search") | contents(clone.study / "selection") == before
    assert not list(clone.study.rglob(".exported-*"))
    # So does a new trial; not even the log can be written now.
    small_disk.leave_free(0)
    clone.write_config(edited({"search.n_trials": 5}))
    refuse(clone, "search", says=("could not be written", "No space left on device"))

    small_disk.leave_free(10_000_000)
    output = clone.run("search")
    assert re.findall(r"^search (\d/\d) trials", output, re.MULTILINE) == ["5/5"]
    assert re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE) == [
        "train_trials",
        "freeze_tables",
        "account_search",
        "search",
    ]
    clone.write_config(edited({"library.keep_fraction": 1.0}))
    plan = clone.plan("library")
    assert {"cache_predictions", "measure_costs"} <= plan
    assert not {job for job in plan if "train_trials" in job} - {"train_trials job=2"}


def test_a_file_that_may_not_grow(fresh_copy: Clone) -> None:
    """A quota's kind of fault, for which no disk need be mounted."""
    command = fresh_copy.command("results/datasets/digits.h5", cores=1)
    done = subprocess.run(
        command,
        cwd=fresh_copy.folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert re.search(r"a file could not be written\n  where: .*digits.h5\n  found: +File too large", done.stdout)
    assert not list(fresh_copy.results.rglob("*.h5"))
    fresh_copy.run("results/datasets/digits.h5")
