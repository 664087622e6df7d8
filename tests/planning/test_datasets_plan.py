"""What makes two datasets the same: the plan is the only parameter of the dataset's rule."""

from __future__ import annotations

import pytest

from ensembleflow.config import DatasetConfig
from ensembleflow.planning.dataset_plan import plan_dataset, planned_dataset

BASE = {"path": "x", "image_size": 32}
EDITS = {
    "path": "y",
    "image_size": 64,
    "calibration_fraction": 0.5,
    "valid_fraction": 0.25,
    "test_fraction": 0.25,
    "train_images": 50,
    "group_pattern": "slide",
    "split_seed": 1,
    "unreadable_images": "skip",
    "duplicates": "together",
    "samples": "arrays",
    "synthetic": {"n_images": 100},
}
OWN_TEST = {"valid_fraction", "calibration_fraction", "split_seed", "train_images", "duplicates"}
USED = {
    "digits": OWN_TEST | {"test_fraction"},
    "cifar100": OWN_TEST | {"path"},
    "image_folder": OWN_TEST | {"test_fraction", "path", "image_size", "unreadable_images", "group_pattern"},
    "table": OWN_TEST | {"test_fraction", "path", "image_size", "unreadable_images"},
    "arrays": OWN_TEST | {"test_fraction", "path", "samples"},
    "idx": OWN_TEST | {"path"},
    "synthetic": OWN_TEST | {"test_fraction", "synthetic"},
}


ONLY_OF = {"group_pattern": "image_folder", "samples": "arrays"}
"""What other sources refuse."""


@pytest.mark.parametrize("source", USED)
def test_an_edit_counts_exactly_where_the_source_uses_the_key(source):
    plan = plan_dataset(DatasetConfig(source=source, **BASE))
    counting = {
        key
        for key, value in EDITS.items()
        if ONLY_OF.get(key, source) == source
        and plan_dataset(DatasetConfig(source=source, **{**BASE, key: value})) != plan
    }
    assert counting == USED[source]


def test_every_key_is_tried():
    assert {*EDITS, "name", "source"} == set(DatasetConfig.model_fields)


@pytest.mark.parametrize("source", USED)
def test_a_plan_is_a_dataset_block_that_makes_the_same_plan(source):
    edits = {"synthetic": {"image_shape": (8, 9, 1)}, "train_images": 50}
    config = DatasetConfig(name="own", source=source, **{**BASE, **edits})
    for state in (None, "ab12"):
        again, again_state = planned_dataset(plan_dataset(config, state))
        assert (again.name, again.source, again_state) == ("own", source, state)
        assert plan_dataset(again, again_state) == plan_dataset(config, state)
        assert (plan_dataset(again) == plan_dataset(config, state)) == (state is None)


def test_a_default_written_out_is_the_same_plan():
    spelt_out = DatasetConfig(source="synthetic", synthetic={"n_images": 6000, "image_shape": [32, 32, 3]})
    assert plan_dataset(spelt_out) == plan_dataset(DatasetConfig(source="synthetic"))


def test_the_plan_of_a_dataset_of_an_earlier_version_is_unchanged():
    """Snakemake would make it again, and all networks that were trained on it."""
    assert plan_dataset(DatasetConfig(valid_fraction=0.2, test_fraction=0.2)) == (
        '{"name":"digits","source":"digits","split_seed":0,"test_fraction":0.2,"valid_fraction":0.2}'
    )
