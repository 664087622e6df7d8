"""Within `search.limits` every algorithm proposes networks that fit, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from ensembleflow.config import parse_config
from ensembleflow.config.faults import ConfigError
from ensembleflow.errors import SearchError
from ensembleflow.planning.search_plan import SearchPlan, plan_job
from ensembleflow.search.samplers import NetworkLimits, network_limits, redrawn_networks
from ensembleflow.search.space import suggest_hyperparameters
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import open_study
from support.slot_study import CHECKSUM, search_plan

SHAPE, N_CLASSES = (32, 32, 3), 10
ALGORITHMS = ["random", "hyperband", "tpe", "bohb", "smac", "gp", "genetic"]
N_TRIALS = 12
SPACE = {"stem_filters": [4, 32], "stage_filters": [4, 32], "blocks_stage_1": [1, 3], "block": ["v1", "v2", "next"]}


def config(algorithm: str, n_trials: int = N_TRIALS, **limits: float):
    search = {"algorithm": algorithm, "n_trials": n_trials, "trials_per_job": n_trials, "n_startup_trials": 4}
    return parse_config({"search": {**search, "n_generations": 3, "space": SPACE, "limits": limits}})


def proposals(folder: Path, algorithm: str, n_trials: int = N_TRIALS, **limits: float) -> list[dict[str, Any]]:
    """What a study proposes, trial by trial, each told a made-up value; larger networks look better."""
    settings = config(algorithm, n_trials, **limits)
    plan = search_plan(settings)
    allowed = network_limits(plan.search, SHAPE, N_CLASSES)
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(open_storage(folder), plan, CHECKSUM, allowed)
    sizes = NetworkLimits(plan.search, SHAPE, N_CLASSES)
    found = []
    for _ in range(n_trials):
        trial = study.ask()
        values = suggest_hyperparameters(trial, plan.search).to_dict()
        size = sizes.size(values)
        found.append({"values": values, "size": size, "redrawn": redrawn_networks(study, trial)})
        study.tell(trial, 1 / size.multiply_adds)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_proposal_is_within_the_limits(algorithm: str, tmp_path: Path) -> None:
    free = proposals(tmp_path / "free", algorithm)
    limits = {"multiply_adds": 2e7, "parameters": 100_000}
    assert any(each["size"].multiply_adds > 2e7 or each["size"].parameters > 100_000 for each in free)
    found = proposals(tmp_path / "limited", algorithm, **limits)
    assert all(each["size"].multiply_adds <= 2e7 and each["size"].parameters <= 100_000 for each in found)
    assert len({tuple(each["values"].values()) for each in found}) > N_TRIALS / 2
    redrawn = [size for each in found for size in each["redrawn"]]
    assert redrawn or algorithm in ("smac", "gp")
    assert not any(each["redrawn"] for each in free)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_limits_that_hold_everywhere_change_no_proposal(algorithm: str, tmp_path: Path) -> None:
    free = proposals(tmp_path / "free", algorithm)
    limited = proposals(tmp_path / "limited", algorithm, multiply_adds=1e12)
    assert [each["values"] for each in limited] == [each["values"] for each in free]


def test_points_at_random_that_fit_are_those_of_a_search_without_limits(tmp_path: Path) -> None:
    free = proposals(tmp_path / "free", "random", 30)
    limited = proposals(tmp_path / "limited", "random", 30, multiply_adds=3e7)
    fit = [each["size"].multiply_adds <= 3e7 for each in free]
    assert 0 < sum(fit) < 30
    for before, after, fits in zip(free, limited, fit, strict=True):
        assert (before["values"] == after["values"]) == fits
        assert (after["redrawn"] == []) == fits


def test_a_search_within_limits_repeats_itself(tmp_path: Path) -> None:
    one, again = (proposals(tmp_path / name, "tpe", multiply_adds=2e7) for name in ("one", "again"))
    assert [each["values"] for each in one] == [each["values"] for each in again]


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_a_space_without_a_network_that_fits_is_refused(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NetworkLimits, "max_draws", 50)
    with pytest.raises(SearchError, match="no network of the space is within the limits") as error:
        proposals(tmp_path, algorithm, parameters=10)
    assert "of 50 networks drawn the smallest has" in error.value.found
    assert error.value.expected == "parameters at most 10"


def test_without_limits_a_search_is_that_of_before(tmp_path: Path) -> None:
    text = plan_job(config("random"), 0)
    assert "limits" not in text
    assert SearchPlan.from_json(text).fingerprint(CHECKSUM) == SearchPlan.from_json(text).fingerprint(CHECKSUM)
    assert network_limits(SearchPlan.from_json(text).search, SHAPE, N_CLASSES) is None
    limited = plan_job(config("random", multiply_adds=1e6), 0)
    assert SearchPlan.from_json(limited).fingerprint(CHECKSUM) != SearchPlan.from_json(text).fingerprint(CHECKSUM)


@pytest.mark.parametrize("limits", [{"multiply_adds": 0}, {"parameters": -1}, {"parameters": 1.5}, {"memory": 3}])
def test_limits_that_are_none_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        config("random", **limits)


optuna.logging.set_verbosity(optuna.logging.WARNING)
