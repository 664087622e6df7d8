"""A search whose jobs are submitted as a job array ends as one whose jobs are submitted one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cluster_search import ClusterSearch
from support.slurm_lab import SlurmLab
from support.whole_search import (
    CONFIG,
    MAX_EPOCHS,
    assert_each_epoch_is_trained_once,
    assert_each_slot_is_filled_once,
    assert_same_results,
    search_of_clone,
)

REPOSITORY = Path(__file__).parents[2]


def array_profile(folder: Path) -> Path:
    """The repository's Slurm profile with its commented lines on job arrays made valid."""
    original = (REPOSITORY / "profiles/slurm/config.yaml").read_text(encoding="utf-8")
    settings = re.findall(r"^#   ((?:slurm-array|jobs|max-jobs)[-a-z]*: .*)$", original, flags=re.MULTILINE)
    assert [line.partition(":")[0] for line in settings] == [
        "jobs",
        "max-jobs-per-timespan",
        "slurm-array-jobs",
        "slurm-array-limit",
    ]
    folder.mkdir()
    others = re.sub("^jobs: .*$", "", original, flags=re.MULTILINE)
    (folder / "config.yaml").write_text("\n".join([others, *settings, ""]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def search(
    slurm_lab: SlurmLab,
    copy_repository: Callable[[Path], None],
    small_dataset: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ClusterSearch]:
    folder = tmp_path_factory.mktemp("array")
    clone = folder / "ensembleflow"
    copy_repository(clone)
    search = search_of_clone(slurm_lab, clone, CONFIG, small_dataset, array_profile(folder / "mycluster"))
    try:
        search.start(*search.job_outputs(3))
        search.finish()
        yield search
    finally:
        search.sweep()


def test_all_search_jobs_are_members_of_one_array(search: ClusterSearch) -> None:
    jobs = [job for job in search.lab.jobs() if job.fields["WorkDir"] == str(search.folder)]
    assert len(jobs) == 3
    assert len({job.fields["ArrayJobId"] for job in jobs}) == 1
    assert sorted(job.fields["ArrayTaskId"] for job in jobs) == ["1", "2", "3"]
    assert {job.state for job in jobs} == {"COMPLETED"}


def test_the_trials_are_those_of_single_jobs(search: ClusterSearch, undisturbed_search: Path, tmp_path: Path) -> None:
    assert_each_slot_is_filled_once(search.search_dir, 3, tmp_path)
    assert_each_epoch_is_trained_once(search.search_dir, 3, MAX_EPOCHS, tmp_path)
    assert_same_results(search.search_dir, undisturbed_search, 3, tmp_path)
