"""The cascade's artefact, from a library's files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ensembleflow.config import CascadeConfig, parse_config
from ensembleflow.errors import ConfigError, SelectionError
from ensembleflow.library import open_predictions
from ensembleflow.selection import select_cascade
from ensembleflow.selection.cascade import Stages
from support.library_files import MODELS, write_library

LOOSE = CascadeConfig(max_changed=0.05)


def cascade_of(folder, members, config=LOOSE, n_calibration=400, **library):
    files = write_library(folder, n_calibration=n_calibration, **library)
    chosen = folder / "budget-4x.json"
    chosen.write_text(json.dumps({"study": "s", "budget": "4x", "members": members, "limits": {"cost_seconds": 9}}))
    select_cascade(chosen, *files, config, folder / "cascade-4x.json")
    return json.loads((folder / "cascade-4x.json").read_text()), files


def test_members_come_cheapest_first_and_the_figures_are_those_of_the_cached_answers(tmp_path):
    members = [MODELS[4], MODELS[1], MODELS[3]]
    made, (predictions, _) = cascade_of(tmp_path, members)
    assert made["members"] == [MODELS[3], MODELS[1], MODELS[4]]
    assert made["costs_seconds"] == [1.0, 1.3, 3.5] and made["cost_seconds"] == pytest.approx(5.8)
    thresholds = [math.inf if each is None else each for each in made["thresholds"]]
    with open_predictions(predictions) as cache:
        places = [cache.models.index(model) for model in made["members"]]
        for split in ("valid", "test", "calibration"):
            stages, labels = Stages.of(cache.probabilities(split)[places]), cache.labels(split)
            told, n_images = made[split], len(labels)
            assert told["n_images"] == n_images
            assert told["n_changed"] == stages.changed(thresholds).sum()
            assert told["shares"] == [each / n_images for each in stages.reached(thresholds)]
            assert told["error"] == pytest.approx((stages.answers(thresholds) != labels).mean())
            assert told["full_error"] == pytest.approx((stages.classes[-1] != labels).mean())
            assert told["n_lost"] - told["n_gained"] == round((told["error"] - told["full_error"]) * n_images)
            assert told["mean_cost_seconds"] == pytest.approx(np.dot(told["shares"], made["costs_seconds"]))
    guarantee = made["guarantee"]
    assert guarantee["n_changed"] == made["calibration"]["n_changed"]
    assert guarantee["upper_bound"] <= 0.05
    assert made["mean_cost_seconds"] == made["calibration"]["mean_cost_seconds"] <= made["cost_seconds"]


def test_the_same_files_give_the_same_cascade(tmp_path):
    first, _ = cascade_of(tmp_path / "a", list(MODELS[:3]))
    again, _ = cascade_of(tmp_path / "b", list(MODELS[:3]))
    assert {**first, "provenance": None} == {**again, "provenance": None}


def test_calibration_images_choose_how_far_to_go_and_no_threshold(tmp_path):
    """Where they are harder, the cascade stops at an earlier step of the same path."""

    def harder(split, cached):
        return cached[:, :, ::-1] if split == "calibration" else cached

    def shuffled(split, cached):
        return np.random.default_rng(5).permuted(cached, axis=0) if split == "calibration" else cached

    easy, _ = cascade_of(tmp_path / "easy", list(MODELS[:3]))
    other, _ = cascade_of(tmp_path / "other", list(MODELS[:3]), probabilities=harder)
    assert easy["thresholds"] == other["thresholds"]  # other classes, the same confidences and changes
    mixed, _ = cascade_of(tmp_path / "mixed", list(MODELS[:3]), probabilities=shuffled)
    assert mixed["guarantee"]["upper_bound"] <= 0.05


@pytest.mark.parametrize("n_calibration", [0, 400])
def test_an_ensemble_of_one_member_is_a_cascade_of_one_stage(tmp_path, n_calibration):
    made, _ = cascade_of(tmp_path, [MODELS[0]], n_calibration=n_calibration)
    assert made["members"] == [MODELS[0]] and made["thresholds"] == []
    assert made["guarantee"] is None and made["mean_cost_seconds"] == made["cost_seconds"]
    assert made["test"]["n_changed"] == 0


def test_too_few_and_no_calibration_images_are_told_with_what_to_do(tmp_path):
    with pytest.raises(SelectionError, match="too few calibration images") as caught:
        cascade_of(tmp_path / "few", list(MODELS[:2]), CascadeConfig(max_changed=0.001))
    assert "400 images" in str(caught.value) and "at least 2,995" in str(caught.value)
    with pytest.raises(SelectionError, match="no calibration images") as caught:
        cascade_of(tmp_path / "none", list(MODELS[:2]), n_calibration=0)
    assert "dataset.calibration_fraction" in str(caught.value)
    assert not list(tmp_path.glob("*/cascade-4x.json"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "`dataset.calibration_fraction` must be above 0"),
        (
            {"dataset": {"calibration_fraction": 0.5}, "library": {"predictions": {"every_class": False}}},
            "`selection.cascade.max_changed` must be null where `library.predictions.every_class` is false",
        ),
        (
            {"dataset": {"calibration_fraction": 0.5}, "allocation": {"engines": ["openvino_bfloat16"]}},
            "`allocation.engines` must not have openvino_bfloat16",
        ),
    ],
)
def test_a_config_that_cannot_have_cascades_is_refused_before_anything_runs(changes, told):
    with pytest.raises(ConfigError) as caught:
        parse_config({"selection": {"cascade": {"max_changed": 0.01}}, **changes})
    assert told in str(caught.value)
