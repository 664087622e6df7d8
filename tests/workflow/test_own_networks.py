"""docs/own-networks.md: from a file with a family of networks to a bundle that does without it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from support.clone import Clone, edited
from support.family_files import of_the_manual

FAMILY = "networks/small_cnn.py"
SMALL = {
    "search.family": FAMILY,
    "search.n_trials": 2,
    "search.max_epochs": 2,
    "selection.budgets": ["1x"],
    "dataset.calibration_fraction": 0.5,
    "selection.cascade": {"max_changed": 0.05},
    "allocation.max_benches": 1,
}
LAYER = """
@keras.saving.register_keras_serializable(package="mine")
class Twice(layers.Layer):
    def call(self, inputs):
        return inputs * 2

"""


@pytest.fixture(scope="module")
def own(copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which everything has run with the manual's family, and a layer of its own in it."""
    clone = Clone(tmp_path_factory.mktemp("own") / "ensembleflow")
    copy_repository(clone.folder)
    clone.write_config(edited(SMALL))
    missing = clone.snakemake()
    assert missing.returncode != 0
    assert f"search.family: {FAMILY}" in missing.stdout
    assert "docs/own-networks.md" in missing.stdout

    source = (
        of_the_manual()
        .replace("\ndef build", LAYER + "\ndef build")
        .replace("(1 / 255)(images)", "(1 / 255)(images)\n    x = Twice()(x)")
    )
    (clone.folder / "networks").mkdir()
    (clone.folder / FAMILY).write_text(source.replace('activation="softmax", ', ""))
    faulty = clone.snakemake()
    assert faulty.returncode != 0
    assert "a family's network does not answer probabilities" in faulty.stdout
    assert "Traceback" not in faulty.stdout
    assert not (clone.study / "search/store").exists(), "nothing is trained"

    (clone.folder / FAMILY).write_text(source)
    clone.run()
    return clone


def test_a_single_member_goes_through_every_stage_as_a_cascade_of_one(own: Clone) -> None:
    cascade = json.loads((own.study / "selection/cascade-1x.json").read_text())
    assert len(cascade["members"]) == 1 and cascade["thresholds"] == []
    assert cascade["calibration"]["n_images"] > 200
    assert json.loads((own.study / "bundles/budget-1x/bundle.json").read_text())["cascade"] is None
    assert "Stopping early" in (own.folder / "results/report.html").read_text(encoding="utf-8")


def test_the_bundle_answers_where_the_file_is_gone(own: Clone, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(own.study / "bundles/budget-1x", bundle)
    assert not [path for path in bundle.rglob("*") if path.suffix == ".py"]
    images = tmp_path / "images"
    images.mkdir()
    import numpy as np
    from PIL import Image

    for place in range(3):
        pixels = np.random.default_rng(place).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{place}.png")
    out = tmp_path / "out.csv"
    command = [sys.executable, "-m", "ensembleflow.cli", "predict", str(bundle), str(images), "--output", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(out)) == 3


def test_the_results_are_those_of_the_family(own: Clone) -> None:
    trials = pd.read_csv(own.study / "search/trials.csv")
    assert {*trials.columns} >= {"filters", "n_pairs", "dropout"}
    assert "stem_filters" not in trials.columns
    assert (own.study / "search/family/small_cnn.py").read_text() == (own.folder / FAMILY).read_text()
    page = (own.results / "report.html").read_text(encoding="utf-8")
    assert "dropout" in page
    assert "stem filters" not in page


def progress(clone: Clone) -> str:
    """What `ensembleflow progress` prints."""
    command = [sys.executable, "-m", "ensembleflow.cli", "progress", "--configfile", clone.config_name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=clone.folder)
    return done.stdout + done.stderr


def test_an_edit_of_the_family_trains_anew_and_one_elsewhere_does_not(own: Clone) -> None:
    assert own.plan() == set()
    assert "search 2/2 trials" in progress(own)
    source = (own.folder / FAMILY).read_text()
    try:
        (own.folder / FAMILY).write_text(source.replace("[8, 16]", "[8, 12]"))
        assert own.plan() >= {"check_family family=small_cnn", "train_trials job=0", "cache_predictions", "make_report"}
        assert not own.plan() & {"prepare_dataset", "fit_baseline"}
        assert "has not started with this config" in progress(own)
    finally:
        (own.folder / FAMILY).write_text(source)
    own.write_config(edited({**SMALL, "search.space.stem_filters": [5, 6]}))
    assert not {job for job in own.plan() if job.startswith(("train_trials", "check_family"))}
    own.write_config(edited({**SMALL, "search.family_space": {"dropout": [0.0, 0.1]}}))
    assert own.plan() >= {"check_family family=small_cnn", "train_trials job=0"}
    own.write_config(edited(SMALL))
