"""A rerun after an edit does exactly what it should: what `snakemake --dry-run` lists in a finished study."""

from __future__ import annotations

import csv
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.clone import STUDY, Clone, edited

BUDGETS = ("1x", "2x")


def search_jobs(*jobs: int) -> set[str]:
    return {f"train_trials job={job}" for job in jobs}


def selections(*budgets: str) -> set[str]:
    return {f"select_ensemble budget={budget}" for budget in budgets} | {"collect_ensembles"}


def allocations(*budgets: str, n: int = 2) -> set[str]:
    return {f"allocate_ensemble budget={budget} n={n}" for budget in budgets}


def bundles(*budgets: str) -> set[str]:
    return {f"make_bundle budget={budget}" for budget in budgets}


# Each stage, with all that comes after it. The run is recorded again whenever its config or results are new, and the
# page made again with it.
RECORD = {"record_run", "make_report"}
ALLOCATION_ON = allocations(*BUDGETS) | bundles(*BUDGETS) | {"plot_allocation", "tabulate_budgets"} | RECORD
COMPARISON_ON = {"compare_methods", "plot_selection_fronts"}
SELECTION_ON = selections(*BUDGETS) | {"plot_error_against_cost", "tabulate_mistakes"} | COMPARISON_ON | ALLOCATION_ON
COSTS_ON = {"measure_costs", "plot_library_distribution"} | SELECTION_ON
LIBRARY_ON = {"rank_models", "cache_predictions"} | COSTS_ON
TABLES_ON = {"freeze_tables", "account_search", "plot_learning_curves"} | LIBRARY_ON
SEARCH_ON = search_jobs(0, 1) | TABLES_ON
EVERYTHING = {"prepare_dataset", "fit_baseline"} | SEARCH_ON
FIGURES = {
    *("plot_learning_curves", "plot_library_distribution", "plot_error_against_cost"),
    *("plot_selection_fronts", "plot_allocation"),
}
# One more or one less ensemble: the tables and figures of all.
BUDGET_TABLES = (
    {"collect_ensembles", "plot_error_against_cost", "plot_allocation", "tabulate_budgets", "tabulate_mistakes"}
    | COMPARISON_ON
    | RECORD
)

SPACE: dict[str, Any] = STUDY["search"]["space"]
DEVICES: list[dict[str, Any]] = STUDY["allocation"]["devices"]

EDITS: dict[str, tuple[dict[str, object], set[str]]] = {
    "another split": ({"dataset.split_seed": 1}, EVERYTHING),
    "the fractions of the split swapped": ({"dataset.valid_fraction": 0.2, "dataset.test_fraction": 0.25}, EVERYTHING),
    # Another study: its folder has a baseline of its own.
    "another seed": ({"seed": 1}, SEARCH_ON | {"fit_baseline"}),
    "more epochs": ({"search.max_epochs": 4}, SEARCH_ON),
    "a wider range in the space": ({"search.space.max_zoom": [0, 0.3]}, SEARCH_ON),
    "two ranges of the space swapped": (
        {"search.space.stem_filters": SPACE["stage_filters"], "search.space.stage_filters": SPACE["stem_filters"]},
        SEARCH_ON,
    ),
    # Hyperband stops by the metric.
    "another metric": ({"search.metric": "error"}, SEARCH_ON),
    "more trials": ({"search.n_trials": 6}, search_jobs(2) | TABLES_ON),
    # Each job owns other slots. All of them find their trials finished: see below.
    "other trials per job": ({"search.trials_per_job": 1}, search_jobs(0, 1, 2, 3) | TABLES_ON),
    "more models kept": ({"library.keep_fraction": 0.75}, LIBRARY_ON),
    "predictions in half precision": ({"library.predictions.dtype": "float16"}, {"cache_predictions"} | COSTS_ON),
    "no baseline": ({"library.baseline": {"classifier": "none"}}, {"fit_baseline", "tabulate_budgets"} | RECORD),
    "another engine": ({"library.engine": "openvino"}, COSTS_ON),
    "more cost repeats": ({"library.cost.repeats": 4}, COSTS_ON),
    "other weights": ({"selection.cost_weights": [0.1, 0.02]}, SELECTION_ON),
    "another selection loss": ({"selection.loss": "brier"}, SELECTION_ON),
    "a local search": ({"selection.local_search": True}, SELECTION_ON),
    "a longer search for the certificate": ({"selection.branch_and_bound_nodes": 30_000}, COMPARISON_ON | RECORD),
    "a budget added": (
        {"selection.budgets": [*BUDGETS, "4x"]},
        selections("4x") | allocations("4x") | bundles("4x") | BUDGET_TABLES,
    ),
    "a budget removed": ({"selection.budgets": ["2x"]}, BUDGET_TABLES),
    "budgets reordered": ({"selection.budgets": ["2x", "1x"]}, RECORD),
    "more benches": ({"allocation.max_benches": 3}, ALLOCATION_ON),
    "a smaller device": ({"allocation.devices": [DEVICES[0], {**DEVICES[1], "memory_mb": 3000}]}, ALLOCATION_ON),
    "another number of devices beside": (
        {"allocation.device_counts": [1, 2]},
        allocations(*BUDGETS, n=1) | {"plot_allocation"} | RECORD,
    ),
    # The bundles hold the allocation on the largest number of devices.
    "another number of devices": (
        {"allocation.device_counts": [1]},
        allocations(*BUDGETS, n=1) | bundles(*BUDGETS) | {"plot_allocation", "tabulate_budgets"} | RECORD,
    ),
    "a device that no allocation uses": (
        {"allocation.devices": [*DEVICES, {"name": "cpu2", "cores": 1, "memory_mb": 3072}]},
        RECORD,
    ),
    # Tables have no resolution; the recorded config has.
    "another resolution": ({"report.dpi": 100}, FIGURES | RECORD),
    "other resources": (
        {
            "resources.search": {"threads": 2, "mem_mb": 5000, "runtime_minutes": 90},
            "resources.library": {"threads": 2, "mem_mb": 5000},
            "resources.selection": {"threads": 2, "mem_mb": 5000, "runtime_minutes": 90, "gpus": 1},
            "resources.allocation": {"threads": 1, "mem_mb": 5000},
        },
        set(),
    ),
    "a Dask cluster for the selection": ({"resources.selection": {"cluster": "slurm", "nodes": 2}}, set()),
}


@pytest.fixture(scope="module")
def plans(finished: Clone) -> dict[str, set[str]]:
    """What each edit would rerun: all planned side by side, since each plan is a process of seconds."""

    def plan(edit: str) -> set[str]:
        clone = Clone(finished.folder, f"{edit}.yaml")
        clone.write_config(edited(EDITS[edit][0]))
        return clone.plan()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(EDITS, pool.map(plan, EDITS), strict=True))


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_reruns_what_depends_on_it(plans: dict[str, set[str]], edit: str) -> None:
    assert plans[edit] == EDITS[edit][1]


UNEDITED = edited({})


def test_the_same_config_written_otherwise_reruns_nothing(finished: Clone) -> None:
    finished.write_config(UNEDITED)
    assert finished.plan() == set()
    # Keys in another order, and defaults spelled out.
    text = edited({"search.algorithm": "hyperband", "library.cost.device": "cpu"}, dict(reversed(STUDY.items())))
    rewritings = {
        "n_trials: 4\n": "n_trials: 4  # for a start\n",
        "inches: 6\n": "inches: 6.0\n",
        "- 0\n": "- 0.0\n",
        "- 2x\n": "- '2x'\n",
    }
    for written, otherwise in rewritings.items():
        assert written in text
        text = text.replace(written, otherwise)
    finished.write_config(text)
    assert finished.plan() == set()


def test_inputs_touched_without_a_change_rerun_nothing(finished_copy: Clone) -> None:
    for name in ("search/trials.csv", "library/models.csv", "library/predictions.h5", "selection/budget-1x.json"):
        os.utime(finished_copy.study / name)
    os.utime(finished_copy.results / "datasets/digits.h5")
    os.utime(finished_copy.folder / "workflow/ensembleflow/selection/greedy.py")
    assert finished_copy.plan() == set()


def test_a_project_that_moved_reruns_nothing(finished: Clone, tmp_path: Path) -> None:
    finished.write_config(UNEDITED)
    assert finished.copy_to(tmp_path / "elsewhere" / "project").plan() == set()


def trials(clone: Clone) -> list[dict[str, str]]:
    with (clone.study / "search/trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def raised(finished: Clone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, str]:
    """A finished study whose search was then raised to one trial more, and what that run printed."""
    finished.write_config(UNEDITED)
    clone = finished.copy_to(tmp_path_factory.mktemp("raised") / "ensembleflow")
    clone.write_config(edited({"search.n_trials": 5}))
    return clone, clone.run("search")


def test_raising_the_number_of_trials_keeps_every_finished_one(finished: Clone, raised: tuple[Clone, str]) -> None:
    before, after = trials(finished), trials(raised[0])
    assert len(before) == 4
    assert after[:4] == before, "weights, metrics, times of the start and the end: all as they were"
    assert [row["slot"] for row in after[4:]] == ["4"]
    assert after[4]["state"] in ("COMPLETE", "PRUNED")
    assert after[4]["weights_sha256"] not in {row["weights_sha256"] for row in before}


def test_raising_the_number_of_trials_trains_the_new_one_only(raised: tuple[Clone, str]) -> None:
    told = re.findall(r"^search (\d/\d) trials", raised[1], re.MULTILINE)
    # A slow trial tells of itself before it ends.
    assert told[-1] == "5/5"
    assert set(told[:-1]) <= {"4/5"}


def test_raising_it_again_fills_up_the_last_job(raised: tuple[Clone, str]) -> None:
    clone, _ = raised
    clone.write_config(edited({"search.n_trials": 6}))
    assert clone.plan("search") == search_jobs(2) | {"freeze_tables", "account_search"}
    clone.write_config(edited({"search.n_trials": 7}))
    assert clone.plan("search") == search_jobs(2, 3) | {"freeze_tables", "account_search"}


def test_other_trials_per_job_train_nothing_again(raised: tuple[Clone, str]) -> None:
    clone, _ = raised
    before = trials(clone)
    clone.write_config(edited({"search.n_trials": 5, "search.trials_per_job": 5}))
    output = clone.run("search")
    assert "train_trials" in output
    assert re.findall(r"^search \d/\d trials", output, re.MULTILINE) == []
    assert trials(clone) == before
