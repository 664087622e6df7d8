"""An edited module makes the rules run again whose results hang on it, and no others: `CODE` in rules/common.smk."""

from __future__ import annotations

import fnmatch
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest
from test_reruns import (
    BUDGETS,
    COMPARISON_ON,
    LIBRARY_ON,
    RECORD,
    SELECTION_ON,
    TABLES_ON,
    bundles,
)

from ensembleflow.planning.paper_plan import FIGURES, ITEMS
from support.clone import REPOSITORY, Clone, edited
from support.import_graph import PACKAGE, reached

COMMON = (REPOSITORY / "rules/common.smk").read_text(encoding="utf-8")


def read_table() -> dict[str, list[str]]:
    names: dict[str, dict[str, list[str]]] = {}
    exec(COMMON[COMMON.index("SMOBF_CODE = [") : COMMON.index("def code(row)")], names)
    return names["CODE"]


CODE = read_table()
# No edit of these changes what a rule makes of its inputs, or it changes far more than a cheap rule may start.
WITHOUT_RESULTS = (
    # Read and check what the user gave, keep files, start processes.
    *(
        "__init__.py",
        "*/__init__.py",
        "arguments.py",
        "child_process.py",
        "errors.py",
        "lazy_names.py",
        "config/*",
        "io/*",
    ),
    *("planning/*", "models/gpu.py", "models/runtime.py", "search/lease.py", "search/process_start.py"),
    # The file of the images has a version of its own, and all that is trained hangs on it.
    "datasets/*",
    # Training: `ALGORITHM_VERSION` says when its results are others.
    *("models/hyperparameters.py", "models/engines/*"),
)
# What a rule uses without its results hanging on it.
USED_ONLY = {
    # The answers of the server that checks a bundle are the members' own, whoever carries them.
    "make_bundle": ("allocation/*", "inference/*", "library/*", "models/*", "serving/*"),
    # Optuna's study, built again to read the rungs from: what the training needs comes with it.
    "table_1": ("models/*", "search/*"),
}


def files_of(row: str) -> set[str]:
    found = [[str(path.relative_to(PACKAGE)) for path in PACKAGE.glob(pattern)] for pattern in CODE[row]]
    assert all(found), "each pattern finds something"
    return {path for paths in found for path in paths}


def entry_of(row: str) -> Path:
    if row == "run_autokeras":
        return PACKAGE / "report/paper/autokeras_process.py"
    item = PACKAGE / "report/paper" / f"{row}.py"
    return item if row in ITEMS or row == "numbers" else REPOSITORY / "workflow/scripts" / f"{row}.py"


def is_any_of(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


@pytest.mark.parametrize("row", CODE)
def test_a_row_names_what_its_rule_imports(row: str) -> None:
    needed = reached(entry_of(row))
    named = files_of(row)
    modules = {path for path in named if path.endswith(".py")}
    assert modules - needed == set(), "not imported, so its edit reruns the rule for nothing"
    assert {
        path for path in needed - modules if not is_any_of(path, (*WITHOUT_RESULTS, *USED_ONLY.get(row, ())))
    } == set()


def test_every_rule_with_code_has_a_row_and_every_row_a_rule() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "rules").glob("*.smk"))
    assert {*re.findall(r'code\("(\w+)"\)', rules), *ITEMS} == set(CODE)


# One module a row, and what its edit makes run again in a finished study.
EDITED_MODULES: dict[str, tuple[str, set[str]]] = {
    "freeze_tables": ("search/tables.py", TABLES_ON),
    "account_search": ("search/accounting.py", {"account_search", "make_report"}),
    "rank_models": ("library/ranking.py", LIBRARY_ON),
    "fit_baseline": ("library/baseline.py", {"fit_baseline", "tabulate_budgets"} | RECORD),
    "select_ensemble": ("selection/smobf.py", SELECTION_ON),
    # The finished study has no cascades.
    "select_cascade": ("selection/cascade_stage.py", set()),
    "collect_ensembles": (
        "selection/tables.py",
        {"collect_ensembles", "plot_error_against_cost", "tabulate_budgets"} | RECORD,
    ),
    "compare_methods": ("selection/rivals/methods.py", COMPARISON_ON | {"make_report"}),
    "make_bundle": ("serving/make_bundle.py", bundles(*BUDGETS) | {"make_report"}),
    "plot_learning_curves": ("report/learning_curves.py", {"plot_learning_curves"}),
    "plot_library_distribution": ("report/library_distribution.py", {"plot_library_distribution"}),
    "plot_error_against_cost": ("report/labels.py", {"plot_error_against_cost"}),
    "plot_selection_fronts": ("report/selection_fronts.py", {"plot_selection_fronts"}),
    "plot_allocation": ("report/allocation.py", {"plot_allocation"}),
    "tabulate_budgets": ("report/measurement.py", {"tabulate_budgets"} | RECORD),
    "tabulate_mistakes": ("report/mistakes.py", {"tabulate_mistakes", "make_report"}),
    "make_report": ("report/page/templates/report.css", {"make_report"}),
    # The engine that all selections share; and what has no row.
    "the engine of the sums": ("selection/sums/losses.py", SELECTION_ON),
    "how a rule logs": ("io/rule.py", set()),
    "a trial": ("search/trial.py", set()),
    "the training": ("models/training.py", set()),
    "the search for an allocation": ("allocation/beam_search.py", set()),
}
LEAVE_OUT = ("--config", "paper={missing_studies: leave_out}")
PRUNING_CSV = "results/digits-hyperband-s0/selection/pruning.csv"


def paper_jobs(*items: str) -> set[str]:
    kinds = {item: "figure" if item in FIGURES else "table" for item in items}
    return {f"make_paper_{kind} {kind}={item}" for item, kind in kinds.items()} | {"make_paper_numbers", "paper"}


EDITED_PAPER_MODULES: dict[str, tuple[str, set[str]]] = {
    # What is drawn from other items' tables comes after them.
    **{
        item: (f"report/paper/{item}.py", paper_jobs(item, *(name for name in ITEMS if item in ITEMS[name].items)))
        for item in ITEMS
    },
    "numbers": ("report/paper/numbers.py", {"make_paper_numbers", "paper"}),
}


def make_clones(clone: Clone, folder: Path) -> SimpleQueue[Clone]:
    """As many copies as there are cores: each plan is a process of seconds, and an edit is its clone's alone."""
    clones: SimpleQueue[Clone] = SimpleQueue()
    for number in range(os.cpu_count() or 1):
        copied = clone.copy_to(folder / str(number) / "ensembleflow")
        copied.config_name = clone.config_name
        clones.put(copied)
    return clones


def plan_of_edit(clones: SimpleQueue[Clone], module: str, targets: tuple[str, ...]) -> set[str]:
    clone = clones.get()
    path = clone.folder / "workflow/ensembleflow" / module
    content, status = path.read_bytes(), path.stat()
    try:
        path.write_bytes(content + (b"/* Edited. */\n" if path.suffix == ".css" else b"# Edited.\n"))
        return clone.plan(*targets)
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        clones.put(clone)


def plans_of_edits(
    clone: Clone, folder: Path, edits: dict[str, tuple[str, set[str]]], *targets: str
) -> dict[str, set[str]]:
    clones = make_clones(clone, folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        plans = pool.map(lambda edit: plan_of_edit(clones, edit[0], targets), edits.values())
        return dict(zip(edits, plans, strict=True))


@pytest.fixture(scope="module")
def plans(finished: Clone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    finished.write_config(edited({}))
    return plans_of_edits(finished, tmp_path_factory.mktemp("edited"), EDITED_MODULES)


@pytest.fixture(scope="module")
def paper_plans(untouched: Clone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Of the paper's items as they are drawn where no study is: their code is all that they hang on."""
    folder = tmp_path_factory.mktemp("paper")
    clone = untouched.copy_to(folder / "ensembleflow")
    clone.config_name = "config/paper_tiny.yaml"
    clone.run("paper", *LEAVE_OUT)
    return plans_of_edits(clone, folder, EDITED_PAPER_MODULES, "paper", *LEAVE_OUT)


@pytest.mark.parametrize("edit", EDITED_MODULES)
def test_an_edited_module_reruns_its_rows_rule_and_on(plans: dict[str, set[str]], edit: str) -> None:
    assert plans[edit] == EDITED_MODULES[edit][1]


@pytest.mark.parametrize("item", EDITED_PAPER_MODULES)
def test_an_edited_item_of_the_paper_is_drawn_again(paper_plans: dict[str, set[str]], item: str) -> None:
    assert paper_plans[item] == EDITED_PAPER_MODULES[item][1]


def test_an_edited_selection_reruns_the_pruning_study(finished_copy: Clone, tmp_path: Path) -> None:
    # Made without its jobs, which measure: Snakemake's own way of saying that files are as they should be.
    for path in finished_copy.missing_outputs(PRUNING_CSV):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if path.suffix == "" else path.touch()
    finished_copy.run(PRUNING_CSV, "--touch")
    assert finished_copy.plan(PRUNING_CSV) == set()
    clones = make_clones(finished_copy, tmp_path / "copies")
    assert plan_of_edit(clones, "selection/rivals/pruning_study.py", (PRUNING_CSV,)) == {"study_pruning"}


def test_the_rows_of_the_edits_are_all_rows() -> None:
    assert {*EDITED_MODULES, *EDITED_PAPER_MODULES, "study_pruning", "run_autokeras"} >= set(CODE)
