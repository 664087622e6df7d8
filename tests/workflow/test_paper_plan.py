"""`snakemake paper`: which studies and items it plans, and that items of missing studies are drawn without them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from support.clone import Clone

ITEMS = ("table_1", "table_2", "table_3", "table_4", "figure_3", "figure_5", "pruning", "smobf", "combiners", "claims")

CLAIMED = ["figure_3", "pruning", "smobf", "combiners", "table_3"]


@pytest.fixture
def paper_clone(fresh_copy: Clone) -> Clone:
    return Clone(fresh_copy.folder, "config/paper_tiny.yaml")


def planned(output: str) -> Counter[str]:
    """How many jobs of each rule a dry run lists."""
    return Counter(re.findall(r"^(?:local)?rule (\w+):$", output, re.MULTILINE))


def test_the_paper_is_one_study_an_algorithm_and_seed_of_one_dataset_file(paper_clone: Clone) -> None:
    output = paper_clone.run("paper", "--dry-run")
    jobs = planned(output)
    assert jobs["prepare_dataset"] == 1
    assert jobs["train_trials"] == 2 * 4
    assert jobs["freeze_tables"] == jobs["measure_costs"] == 4
    assert jobs["select_ensemble"] == 2 * 4
    # All models only of the studies that the pruning study is about.
    assert jobs["cache_whole_library"] == jobs["measure_whole_library"] == jobs["study_pruning"] == 2
    assert jobs["allocate_ensemble"] == jobs["simulate_allocation"] == 2 * 2
    assert jobs["make_paper_table"] + jobs["make_paper_figure"] == len(ITEMS)
    assert set(re.findall(r"study=([\w-]+)", output)) == {
        f"digits-{algorithm}-s{seed}" for algorithm in ("random", "hyperband") for seed in (0, 1)
    }


@pytest.mark.parametrize("item", ITEMS)
def test_each_item_is_a_target_of_its_own(paper_clone: Clone, item: str) -> None:
    output = paper_clone.run(f"paper_{item}", "--dry-run")
    wanted = {item, *{"table_4": ["figure_3"], "claims": CLAIMED}.get(item, [])}
    assert set(re.findall(r"wildcards: (?:table|figure)=(\w+)", output)) == wanted


def test_what_is_missing_is_left_out_on_demand(paper_clone: Clone) -> None:
    paper_clone.run("paper", "--config", "paper={missing_studies: leave_out}")
    for item in ITEMS:
        page = (paper_clone.folder / "results_paper_tiny/paper" / f"{item}.md").read_text(encoding="utf-8")
        assert "is not there, so it is left out" in page
    assert not list(Path(paper_clone.folder, "results_paper_tiny").glob("digits-*"))
    # Once the studies are wanted again, all that was left out is planned.
    assert planned(paper_clone.run("paper", "--dry-run"))["make_paper_table"] == 7


def test_a_study_that_no_config_describes_is_refused_with_the_reason(paper_clone: Clone) -> None:
    done = paper_clone.snakemake("results_paper_tiny/digits-annealing-s0/search/trials.csv", "--dry-run")
    assert done.returncode != 0
    assert "a study's algorithm does not suit the config" in done.stdout
