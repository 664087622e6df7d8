"""A search job: real training, real kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from ensembleflow.datasets import open_dataset
from ensembleflow.planning.search_plan import ALGORITHM_VERSION, SearchPlan, plan_job
from ensembleflow.search import freeze_tables
from ensembleflow.search.lease import Lease
from ensembleflow.search.record import TrialRecord, TrialStore
from ensembleflow.search.study import open_storage
from ensembleflow.search.trial import MAX_ATTEMPTS
from support.search_jobs import results, run, start, wait_for_epochs
from support.small_search import search_config
from support.trial_records import epoch_of, known


def study_in(search_dir: Path, name_ends_with: str = "") -> optuna.Study:
    storage = open_storage(search_dir)
    (name,) = [name for name in optuna.get_all_study_names(storage) if name.endswith(name_ends_with)]
    return optuna.load_study(study_name=name, storage=storage)


def states(search_dir: Path) -> list[TrialState]:
    return [trial.state for trial in study_in(search_dir).get_trials()]


@pytest.fixture(scope="module")
def undisturbed(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    search_dir = tmp_path_factory.mktemp("undisturbed")
    run(search_config(), 0, digits, search_dir)
    return search_dir


def test_every_slot_leaves_a_trial_with_epochs_and_a_model(undisturbed: Path) -> None:
    trials = results(undisturbed)
    assert [trial["slot"] for trial in trials] == [0, 1, 2, 3]
    assert {trial["state"] for trial in trials} <= {"COMPLETE", "PRUNED"}
    for trial in trials:
        assert [epoch["epoch"] for epoch in trial["epochs"]] == list(range(1, len(trial["epochs"]) + 1))
        assert (undisturbed / f"models/job-0/trial-{trial['slot']:05d}.keras").exists()
        assert len(trial["epochs"]) == 3 or trial["state"] == "PRUNED"
    assert all(state.is_finished() for state in states(undisturbed))


def test_a_killed_job_goes_on_as_if_nothing_had_happened(digits: Path, tmp_path: Path, undisturbed: Path) -> None:
    process = start(search_config(), 0, digits, tmp_path)
    wait_for_epochs(tmp_path, 0, 1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert states(tmp_path)[0] == TrialState.RUNNING

    run(search_config(), 0, digits, tmp_path)

    assert results(tmp_path) == results(undisturbed)
    assert len(states(tmp_path)) == 4


def test_a_second_copy_of_a_job_waits_and_trains_nothing_twice(digits: Path, tmp_path: Path, undisturbed: Path) -> None:
    first = start(search_config(), 0, digits, tmp_path)
    wait_for_epochs(tmp_path, 0, 1)
    second = start(search_config(), 0, digits, tmp_path)
    assert first.wait(300) == 0
    assert second.wait(300) == 0
    assert results(tmp_path) == results(undisturbed)
    assert len(states(tmp_path)) == 4


def test_cleared_outputs_are_made_again_without_training(digits: Path, tmp_path: Path) -> None:
    config = search_config(n_trials=2, trials_per_job=2)
    run(config, 0, digits, tmp_path)
    before = results(tmp_path)
    for path in (tmp_path / "models/job-0").iterdir():
        path.unlink()
    (tmp_path / "trials/job-0.json").unlink()
    assert "search" not in run(config, 0, digits, tmp_path), "no trial should have been trained"
    assert results(tmp_path) == before
    assert len(list((tmp_path / "models/job-0").iterdir())) == 2


def test_other_jobs_of_other_sizes_find_the_same_slots(digits: Path, tmp_path: Path) -> None:
    run(search_config(n_trials=2, trials_per_job=2), 0, digits, tmp_path)
    before = results(tmp_path)
    more = search_config(n_trials=3, trials_per_job=1)
    for job in range(3):
        run(more, job, digits, tmp_path)
    assert results(tmp_path, 0) + results(tmp_path, 1) == before
    freeze_tables(
        sorted((tmp_path / "trials").iterdir()), *(tmp_path / f"{n}.csv" for n in ("trials", "epochs", "runs"))
    )
    assert len(states(tmp_path)) == 3


def test_an_edited_space_starts_afresh_and_going_back_finds_the_old_trials(digits: Path, tmp_path: Path) -> None:
    one = search_config(n_trials=1, trials_per_job=1)
    run(one, 0, digits, tmp_path)
    before = results(tmp_path)
    run(search_config(n_trials=1, trials_per_job=1, space={"batch_size": [128, 128]}), 0, digits, tmp_path)
    assert results(tmp_path) != before
    assert "search" not in run(one, 0, digits, tmp_path)
    assert results(tmp_path) == before


def test_trials_of_another_version_of_the_algorithms_are_told_and_left_alone(digits: Path, tmp_path: Path) -> None:
    config = search_config(n_trials=1, trials_per_job=1, max_epochs=1)
    plan = SearchPlan.from_json(plan_job(config, 0))
    old = optuna.create_study(storage=open_storage(tmp_path), study_name=f"{plan.study}-01234567")
    old.set_user_attr("ensembleflow:algorithm_version", ALGORITHM_VERSION - 1)
    told = run(config, 0, digits, tmp_path)
    assert f"has trials of another version of the search's algorithms ({ALGORITHM_VERSION - 1}; this is" in told
    assert "another version" not in run(config, 0, digits, tmp_path / "new")


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ({"learning_rate": [1e25, 1e25]}, "diverged in epoch 1"),
        ({"stem_filters": [2_000_000, 2_000_000], "stage_filters": [2_000_000, 2_000_000]}, "out of memory in epoch"),
    ],
)
def test_a_trial_that_fails_is_recorded_and_the_job_goes_on(
    digits: Path, tmp_path: Path, space: dict, reason: str
) -> None:
    config = search_config(n_trials=2, trials_per_job=2, space=space)
    stderr = run(config, 0, digits, tmp_path)
    assert stderr.count(reason) == 2
    trials = results(tmp_path)
    assert [trial["state"] for trial in trials] == ["FAIL", "FAIL"]
    assert all(trial["reason"].startswith(reason) for trial in trials)
    freeze_tables([tmp_path / "trials/job-0.json"], *(tmp_path / f"{n}.csv" for n in ("trials", "epochs", "runs")))


def test_a_trial_whose_process_keeps_dying_is_given_up(digits: Path, tmp_path: Path) -> None:
    config = search_config(n_trials=1, trials_per_job=1)
    process = start(config, 0, digits, tmp_path)
    wait_for_epochs(tmp_path, 0, 1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (record_path,) = tmp_path.glob("store/*/trial-00000/record.json")
    record = json.loads(record_path.read_text())
    record_path.write_text(json.dumps({**record, "attempts": MAX_ATTEMPTS}))
    run(config, 0, digits, tmp_path)
    (trial,) = results(tmp_path)
    assert trial["state"] == "FAIL"
    assert "ended unexpectedly" in trial["reason"]
    assert (tmp_path / "models/job-0/trial-00000.keras").exists()


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("model.keras", None, "weights are gone"),
        ("record.json", '{"slot": 1, "state": "COMP', "record is damaged"),
        ("record.json", '{"slot": 1, "state": "COMPLETE", "epochs": []}', "record is damaged"),
    ],
)
def test_a_damaged_trial_is_named_and_the_hint_costs_no_other_one(
    file: str, content: str | None, told: str, digits: Path, tmp_path: Path
) -> None:
    config = search_config(algorithm="random", n_trials=2, trials_per_job=2, max_epochs=1)
    run(config, 0, digits, tmp_path)
    before = results(tmp_path)
    (folder,) = tmp_path.glob("store/*/trial-00001")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    process = start(config, 0, digits, tmp_path)
    stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert told in stderr and "Traceback" not in stderr
    assert str(folder / file) in stderr
    assert f"delete {folder} and the study" in stderr

    shutil.rmtree(folder)
    (tmp_path / "study.journal").unlink()
    run(config, 0, digits, tmp_path)
    assert results(tmp_path) == before
    log = (tmp_path / "job-0.log").read_text()
    assert (log.count("trial 0 epoch 1"), log.count("trial 1 epoch 1")) == (1, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_job_told_to_stop_gives_its_slot_back_and_goes_on_later(
    digits: Path, tmp_path: Path, undisturbed: Path, number: int
) -> None:
    process = start(search_config(), 0, digits, tmp_path)
    wait_for_epochs(tmp_path, 0, 1)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert list(tmp_path.glob("store/*/*.lease")) == []
    run(search_config(), 0, digits, tmp_path)
    assert results(tmp_path) == results(undisturbed)


def test_a_journal_with_a_torn_last_line_opens(digits: Path, tmp_path: Path) -> None:
    config = search_config(n_trials=1, trials_per_job=1)
    run(config, 0, digits, tmp_path)
    before = states(tmp_path)
    with open(tmp_path / "study.journal", "a") as journal:
        journal.write('{"op_code": 4, "worker')
    assert states(tmp_path) == before
    run(search_config(n_trials=2, trials_per_job=2), 0, digits, tmp_path)
    assert len(states(tmp_path)) == 2


def test_a_storage_that_was_lost_or_moved_is_told_the_trials_again_and_none_is_trained_twice(
    digits: Path, tmp_path: Path
) -> None:
    config = search_config(n_trials=2, trials_per_job=2)
    run(config, 0, digits, tmp_path)
    before = results(tmp_path)

    def told() -> list[tuple[object, ...]]:
        storage = open_storage(tmp_path)
        (study,) = storage.get_all_studies()
        trials = storage.get_all_trials(study._study_id)
        return [(trial.state, trial.params, trial.intermediate_values, trial.value) for trial in trials]

    known = told()
    (tmp_path / "study.journal").unlink()
    run(config, 0, digits, tmp_path)
    assert results(tmp_path) == before
    assert told() == known
    assert "epoch" not in (tmp_path / "job-0.log").read_text().split("search 2/2 trials", 1)[1]


def test_jobs_after_a_lost_storage_learn_from_all_finished_trials(digits: Path, tmp_path: Path) -> None:
    config = search_config(algorithm="hyperband", n_trials=4, trials_per_job=2)
    run(config, 0, digits, tmp_path)
    before = known(study_in(tmp_path))
    (tmp_path / "study.journal").unlink()
    run(config, 1, digits, tmp_path)
    assert known(study_in(tmp_path))[:2] == before
    assert all(state.is_finished() for state in states(tmp_path))


def test_a_trial_whose_model_does_not_fit_again_fails_without_one(digits: Path, tmp_path: Path) -> None:
    huge = {"stem_filters": [2_000_000, 2_000_000], "stage_filters": [2_000_000, 2_000_000]}
    config = search_config(algorithm="random", n_trials=1, trials_per_job=1, space=huge)
    with open_dataset(digits) as data:
        fingerprint = SearchPlan.from_json(plan_job(config, 0)).fingerprint(data.checksum)
    store = TrialStore(tmp_path / "store" / fingerprint / "trial-00000")
    store.write(TrialRecord(slot=0, stopped=True, epochs=[epoch_of(1)]))
    store.checkpoint_path(1).touch()
    for _ in range(2):  # the second one finds it finished
        run(config, 0, digits, tmp_path)
        (trial,) = results(tmp_path)
        assert trial["state"] == "FAIL"
        assert trial["reason"].startswith("out of memory")
        assert list((tmp_path / "models/job-0").iterdir()) == []
    freeze_tables([tmp_path / "trials/job-0.json"], *(tmp_path / f"{n}.csv" for n in ("trials", "epochs", "runs")))


def test_a_trial_that_another_process_is_just_writing_is_not_read(digits: Path, tmp_path: Path) -> None:
    config = search_config(algorithm="random", n_trials=1, trials_per_job=1, max_epochs=9)
    first = start(config, 0, digits, tmp_path)
    wait_for_epochs(tmp_path, 0, 1)
    first.terminate()
    first.wait(60)
    (checkpoint,) = tmp_path.glob("store/*/trial-00000/epoch-*.npz")
    with Lease(checkpoint.parent.with_suffix(".lease")):
        checkpoint.rename(checkpoint.with_name("removed"))  # as by a process that has just finished the next epoch
        second = start(config, 0, digits, tmp_path)
        log = tmp_path / "job-0.log"
        while "is held by process" not in log.read_text():
            assert second.poll() is None, second.communicate()[1]
            time.sleep(0.1)
        checkpoint.with_name("removed").rename(checkpoint)
    stderr = second.communicate(timeout=300)[1]
    assert second.returncode == 0, stderr


def test_a_random_search_tells_optuna_the_configs_metric_and_another_one_later(digits: Path, tmp_path: Path) -> None:
    for metric, n_trials in (("cross_entropy", 1), ("macro_f1_error", 2)):
        config = search_config(algorithm="random", n_trials=n_trials, trials_per_job=1, max_epochs=1, metric=metric)
        stderr = run(config, n_trials - 1, digits, tmp_path)
        assert f"best {metric}" in stderr
        assert json.loads((tmp_path / f"trials/job-{n_trials - 1}.json").read_text())["metric"] == metric
        trials = [trial for job in range(n_trials) for trial in results(tmp_path, job)]
        values = [trial["epochs"][-1][f"valid_{metric}"] for trial in trials]
        assert [trial.value for trial in study_in(tmp_path, metric).get_trials()] == values
    assert len(list(tmp_path.glob("store/*/trial-*/"))) == 2, "none is trained for each metric"
