"""A search over networks of the user's own: what it depends on, and that it goes on after a kill as it would have."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ensembleflow.config import Config, parse_config
from ensembleflow.errors import ArtefactError, FamilyError, SearchError
from ensembleflow.models import FamilyHyperparameters
from ensembleflow.planning.search_plan import SearchPlan, family_inputs, plan_family, plan_job
from ensembleflow.search.samplers import network_limits
from ensembleflow.search.space import distributions, suggest_hyperparameters
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import claim_slot, open_study
from ensembleflow.search.study_family import check_study_family, checked_plan, family_copy
from ensembleflow.search.tables import freeze_tables, hyperparameter_columns
from support.family_files import GOOD, IMAGE_SHAPE, N_CLASSES, in_two_phases, written
from support.search_jobs import results, run, start, wait_for_epochs
from support.slot_study import ALGORITHMS

AUGMENTING = (
    in_two_phases(epochs="3")
    + "\ndef augment(images, hp, rng):\n    return images if rng.random() < 0.5 else images[:, ::-1]\n"
)


def config_of(file: Path, **search: Any) -> Config:
    values = {"family": str(file), "n_trials": 2, "trials_per_job": 2, "max_epochs": 3, "algorithm": "random"}
    return parse_config({"search": {**values, **search}, "library": {"keep_fraction": 1}})


def checked(config: Config, dataset: Path, search_dir: Path) -> Path:
    """Check as the rule does; the folder of the search."""
    for name in config.search.own_families:
        copy = family_copy(search_dir, name)
        file = family_inputs(config.search, name)[0]
        check_study_family(file, plan_family(config, name), dataset, copy, copy.with_suffix(".json"))
    return search_dir


def planned(config: Config, search_dir: Path) -> SearchPlan:
    return checked_plan(SearchPlan.from_json(plan_job(config, 0), config.search.metric), search_dir)


@pytest.fixture(scope="module")
def small(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A config with a family, and the folder of its search, checked and not yet trained."""
    folder = tmp_path_factory.mktemp("small")
    config = config_of(written(folder / "networks", GOOD))
    return config, checked(config, digits, folder / "search")


def test_a_killed_search_ends_as_one_that_was_not(small: tuple[Config, Path], digits: Path, tmp_path: Path) -> None:
    config, _ = small
    config = config_of(written(tmp_path, AUGMENTING), n_trials=1, trials_per_job=1, max_epochs=6)
    whole, killed = (checked(config, digits, tmp_path / name) for name in ("whole", "killed"))
    run(config, 0, digits, whole)
    process = start(config, 0, digits, killed)
    wait_for_epochs(killed, 0, 2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "trials/job-0.json").exists()
    run(config, 0, digits, killed)
    assert results(killed) == results(whole)
    trial = results(whole)[0]
    assert trial["state"] == "COMPLETE"
    assert trial["weights_sha256"]
    assert trial["hyperparameters"]["max_zoom"] == 0, "its own augmentation is in the place of ours"

    tables = [tmp_path / f"{name}.csv" for name in ("trials", "epochs", "runs")]
    freeze_tables([whole / "trials/job-0.json"], *tables)
    columns = hyperparameter_columns(pd.read_csv(tables[0]))
    assert {*columns} >= {"learning_rate", "units", "activation", "bias", "dropout"}
    assert not {"stem_filters", "l2", "block"} & {*columns}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_proposes_within_the_familys_space(
    algorithm: str, small: tuple[Config, Path], digits: Path, tmp_path: Path
) -> None:
    startup = {} if algorithm == "genetic" else {"n_startup_trials": 3}
    extra = {"n_generations": 2} if algorithm == "genetic" else {}
    config = config_of(Path(small[0].search.family[0]), algorithm=algorithm, n_trials=6, **startup, **extra)
    plan = planned(config, small[1])
    study = open_study(open_storage(tmp_path), plan, "checksum")
    for slot in range(6):
        trial = claim_slot(study, slot, tmp_path)
        values = suggest_hyperparameters(trial, plan.search).to_dict()
        assert values["units"] in range(4, 9)
        assert values["activation"] in ("relu", "tanh")
        assert values["bias"] in (True, False)
        assert 0 <= values["dropout"] <= 0.5
        study.tell(trial, values["dropout"] + (values["activation"] == "tanh"))


def test_limits_hold_for_networks_that_have_to_be_built(small: tuple[Config, Path]) -> None:
    from ensembleflow.models import load_family

    config = config_of(Path(small[0].search.family[0]), limits={"parameters": 420})
    plan, family = planned(config, small[1]), load_family(family_copy(small[1], "own"))
    limits = network_limits(plan.search, IMAGE_SHAPE, N_CLASSES, lambda: {"own": family})
    assert limits is not None
    values = {"units": 4, "bias": True, "activation": "relu", "dropout": 0.1}
    lowest = {
        name: getattr(each, "low", None) or each.to_external_repr(0)
        for name, each in distributions(plan.search).items()
    }
    size = limits.size({**lowest, **values})
    assert (size.parameters, size.multiply_adds) == (64 * 4 + 4 + 16 + 50, 64 * 4 + 40)
    assert limits.allows(size)
    assert not limits.allows(limits.size({**lowest, **values, "units": 8}))
    none_fits = config_of(Path(small[0].search.family[0]), limits={"parameters": 10})
    limits = network_limits(planned(none_fits, small[1]).search, IMAGE_SHAPE, N_CLASSES, lambda: {"own": family})
    assert limits is not None
    assert "search.family_space" in str(limits.nothing_left([size]).hint)


def test_a_search_depends_on_the_familys_content_and_not_on_its_place(digits: Path, tmp_path: Path) -> None:
    def fingerprint(name: str, source: str, **search: Any) -> str:
        config = config_of(written(tmp_path / name, source), **search)
        return planned(config, checked(config, digits, tmp_path / name / "search")).fingerprint("checksum")

    first = fingerprint("one", GOOD)
    assert fingerprint("two", GOOD) == first
    assert fingerprint("three", GOOD.replace('"tanh"', '"gelu"')) != first
    assert fingerprint("four", GOOD, family_space={"units": [4, 6]}) != first
    assert fingerprint("five", GOOD, family_space={"units": [4, 8]}) == first, "the file's own, spelled out"


def test_the_residual_networks_space_counts_for_them_only(small: tuple[Config, Path]) -> None:
    config = config_of(Path(small[0].search.family[0]), space={"stem_filters": [3, 99], "l2": [0.1, 0.2]})
    assert planned(config, small[1]).fingerprint("checksum") == planned(*small).fingerprint("checksum")
    assert plan_job(config, 0) == plan_job(small[0], 0)


def test_an_edited_copy_is_refused_and_a_missing_check_too(
    small: tuple[Config, Path], digits: Path, tmp_path: Path
) -> None:
    config, _ = small
    search_dir = checked(config, digits, tmp_path)
    copy = family_copy(search_dir, "own")
    copy.write_text(copy.read_text() + "\n")
    with pytest.raises(ArtefactError, match="not the one that was checked"):
        planned(config, search_dir)
    copy.unlink()
    with pytest.raises(ArtefactError, match="not the one that was checked"):
        planned(config, search_dir)
    with pytest.raises(ArtefactError):
        planned(config, tmp_path / "nothing")


OVERRIDES = {
    "an unknown name": ({"unit": [4, 8]}, "does not have", "units, activation, bias, dropout"),
    "a range for choices": ({"activation": [1, 2]}, "of another kind", "whole numbers"),
    "numbers for whole numbers": ({"units": [4.0, 8.5]}, "of another kind", "whole numbers"),
    "texts for numbers": ({"dropout": ["a", "b"]}, "of another kind", "numbers"),
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_ranges_of_the_config_that_do_not_suit_are_refused(
    name: str, small: tuple[Config, Path], digits: Path, tmp_path: Path
) -> None:
    space, what, told = OVERRIDES[name]
    with pytest.raises(FamilyError, match=what) as error:
        checked(config_of(Path(small[0].search.family[0]), family_space=space), digits, tmp_path)
    assert told in str(error.value)
    assert not (tmp_path / "family").exists()


def test_the_configs_ranges_stand_in_for_the_files(small: tuple[Config, Path], digits: Path, tmp_path: Path) -> None:
    space = {"dropout": [0, 1], "units": {"choices": [4, 6]}}
    config = config_of(Path(small[0].search.family[0]), family_space=space)
    found = json.loads(family_copy(checked(config, digits, tmp_path), "own").with_suffix(".json").read_text())
    assert found["space"]["dropout"] == [0.0, 1.0]
    assert found["space"]["units"] == {"choices": [4, 6]}
    assert found["space"]["bias"] == [True, False]
    assert {each["hyperparameters"]["units"] for each in found["networks"]} == {4, 6}


def test_a_point_that_cannot_be_built_is_a_failed_trial(digits: Path, tmp_path: Path) -> None:
    """What the check did not see, for it tries a few points only."""
    source = GOOD.replace(
        "    images =", '    assert not 4.5 < hp["units"] < 7.5, "a width of bad luck"\n    images =', 1
    )
    config = config_of(written(tmp_path, source), n_trials=6, trials_per_job=6, max_epochs=1)
    search_dir = checked(config, digits, tmp_path / "search")
    run(config, 0, digits, search_dir)
    states = {trial["hyperparameters"]["units"]: (trial["state"], trial["reason"]) for trial in results(search_dir)}
    assert {units for units, (state, _) in states.items() if state == "FAIL"} == {*states} & {5, 6, 7}
    assert {*states} & {5, 6, 7}
    assert {*states} & {4, 8}
    assert all("a width of bad luck" in reason for state, reason in states.values() if state == "FAIL")


def test_attention_is_told_where_sizes_are_limited(digits: Path, tmp_path: Path) -> None:
    from ensembleflow.models import load_family

    source = GOOD.replace(
        "x = keras.layers.Dropout",
        "x = keras.layers.Flatten()(keras.layers.MultiHeadAttention(1, 2)(*[keras.layers.Reshape((-1, 1))(x)] * 2))\n"
        "    x = keras.layers.Dropout",
    )
    config = config_of(written(tmp_path, source), limits={"multiply_adds": 1e5})
    plan = planned(config, checked(config, digits, tmp_path / "search"))
    limits = network_limits(plan.search, IMAGE_SHAPE, N_CLASSES, lambda: {"own": load_family(config.search.family[0])})
    study = open_study(open_storage(tmp_path), plan, "checksum", limits)
    with pytest.raises(SearchError, match="cannot be told"):
        suggest_hyperparameters(claim_slot(study, 0, tmp_path), plan.search)


def test_files_among_the_choices_are_part_of_what_a_search_depends_on(digits: Path, tmp_path: Path) -> None:
    weights = tmp_path / "some.weights.h5"
    source = GOOD.replace('"units"', f'"weights": ["random", "{weights}"], "units"', 1)
    config = config_of(written(tmp_path, source))

    def fingerprint(content: bytes, name: str) -> str:
        weights.write_bytes(content)
        return planned(config, checked(config, digits, tmp_path / name)).fingerprint("checksum")

    first = fingerprint(b"one", "one")
    assert fingerprint(b"other", "other") != first
    assert fingerprint(b"one", "again") == first
    weights.write_bytes(b"other")
    with pytest.raises(ArtefactError, match="not the one that it was checked with") as error:
        planned(config, tmp_path / "one")
    assert str(weights) in str(error.value)
    named = config_of(Path(config.search.family[0]), family_space={"weights": [str(weights)]})
    assert family_inputs(named.search, "own") == [config.search.family[0], str(weights)], "Snakemake looks at them too"


@pytest.fixture(scope="module")
def mixed(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """Residual networks and two families of one's own, one of which augments images itself."""
    folder = tmp_path_factory.mktemp("mixed")
    files = [written(folder, GOOD, "own.py"), written(folder, AUGMENTING, "phased.py")]
    config = config_of(files[0], family=["resnet", *map(str, files)], family_space={"phased": {"units": [5, 6]}})
    return config, checked(config, digits, folder / "search")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_over_several_families_proposes_networks_of_each(
    algorithm: str, mixed: tuple[Config, Path], tmp_path: Path
) -> None:
    extra: dict[str, Any] = {"n_generations": 2} if algorithm == "genetic" else {"n_startup_trials": 8}
    search = mixed[0].search
    config = config_of(
        Path(), family=search.family, family_space=search.family_space, algorithm=algorithm, n_trials=16, **extra
    )
    plan = planned(config, mixed[1])
    study = open_study(open_storage(tmp_path), plan, "checksum")
    families = []
    for slot in range(16):
        trial = claim_slot(study, slot, tmp_path)
        found = suggest_hyperparameters(trial, plan.search)
        families.append(getattr(found, "family", "resnet"))
        assert trial.params["family"] == families[-1]
        if isinstance(found, FamilyHyperparameters):
            assert {*found.network} == {"units", "activation", "bias", "dropout"}
            assert found.network["units"] in (range(5, 7) if found.family == "phased" else range(4, 9))
        study.tell(trial, 0.1 * slot)
    assert {*families} == {"resnet", "own", "phased"}


def test_trials_of_several_families_lie_in_one_table(mixed: tuple[Config, Path], digits: Path, tmp_path: Path) -> None:
    search = mixed[0].search
    how = {"n_trials": 6, "trials_per_job": 6, "max_epochs": 1}
    config = config_of(Path(), family=search.family, family_space=search.family_space, **how)
    run(config, 0, digits, mixed[1])
    tables = [tmp_path / f"{name}.csv" for name in ("trials", "epochs", "runs")]
    freeze_tables([mixed[1] / "trials/job-0.json"], *tables)
    trials = pd.read_csv(tables[0])
    assert set(trials.state) == {"COMPLETE"}
    assert len({*trials.family}) > 1
    for row in trials.to_dict("records"):
        values = {name: row[name] for name in hyperparameter_columns(trials) if "." in name}
        assert {name.partition(".")[0] for name, value in values.items() if not pd.isna(value)} == {row["family"]}
    assert {"resnet.block", "own.units", "phased.units"} <= {*hyperparameter_columns(trials)}


def test_which_families_a_study_has_is_part_of_what_it_depends_on(mixed: tuple[Config, Path]) -> None:
    search = mixed[0].search
    two = config_of(Path(), family=search.family[:2])
    three = config_of(Path(), family=search.family)
    other = config_of(Path(), family=search.family, family_space={"own": {"units": [4, 5]}})
    found = [planned(each, mixed[1]).fingerprint("checksum") for each in (two, three)]
    assert len({*found}) == 2
    assert plan_family(other, "own") != plan_family(three, "own")
    assert plan_family(other, "phased") == plan_family(three, "phased")
