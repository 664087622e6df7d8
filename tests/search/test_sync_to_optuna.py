"""A study whose storage was lost or changed gets the finished trials from the store."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from ensembleflow.config import Config
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.lease import Lease
from ensembleflow.search.space import suggest_hyperparameters
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import claim_slot, open_study
from ensembleflow.search.sync_to_optuna import sync_finished_trials
from support.slot_study import CHECKSUM, run_function, search_plan, small_config
from support.trial_records import known, run_recorded

N_TRIALS = 16


def study(folder: Path, config: Config) -> optuna.Study:
    return open_study(open_storage(folder), search_plan(config), CHECKSUM)


@pytest.mark.parametrize("algorithm", ["hyperband", "bohb", "tpe", "gp", "smac", "genetic"])
def test_a_search_goes_on_in_a_new_storage_as_in_the_old_one(algorithm: str, tmp_path: Path) -> None:
    config = small_config(algorithm, N_TRIALS + 8)
    old, new, store_dir = study(tmp_path / "old", config), study(tmp_path / "new", config), tmp_path / "store"
    run_recorded(old, config, range(N_TRIALS), store_dir)
    assert {"COMPLETE", "FAIL"} <= {trial.state.name for trial in old.get_trials()}
    sync_finished_trials(new, store_dir, config.search)
    assert known(new) == known(old)
    for ours in (old, new):
        run_recorded(ours, config, range(N_TRIALS, N_TRIALS + 8), tmp_path / "later")
    assert known(new) == known(old)


def test_trials_left_waiting_or_running_in_the_storage_are_synced_but_not_those_that_another_process_holds(
    tmp_path: Path,
) -> None:
    config = small_config("hyperband", N_TRIALS)
    old, new, store_dir = study(tmp_path / "old", config), study(tmp_path / "new", config), tmp_path / "store"
    run_recorded(old, config, range(8), store_dir)
    suggest_hyperparameters(claim_slot(new, 2, tmp_path), config.search)
    claim_slot(new, 9, tmp_path)
    with Lease(store_dir / f"{model_id(3)}.lease"):
        sync_finished_trials(new, store_dir, config.search)
        assert known(new)[:3] + known(new)[4:8] == known(old)[:3] + known(old)[4:]
        assert [new.get_trials()[slot].state.name for slot in (3, 8, 9)] == ["WAITING", "WAITING", "RUNNING"]
    sync_finished_trials(new, store_dir, config.search)
    assert known(new)[:8] == known(old)


def _sync(folder: str, config_json: str) -> None:
    config = Config.model_validate_json(config_json)
    sync_finished_trials(study(Path(folder, "new"), config), Path(folder, "store"), config.search)


def test_jobs_that_start_at_once_add_each_trial_once(tmp_path: Path) -> None:
    config = small_config("bohb", N_TRIALS)
    old = study(tmp_path / "old", config)
    run_recorded(old, config, range(N_TRIALS), tmp_path / "store")
    processes = [run_function(_sync, str(tmp_path), config.model_dump_json()) for _ in range(4)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert known(study(tmp_path / "new", config)) == known(old)
