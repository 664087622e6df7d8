"""A study belongs to the project folder that its trials lie in."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest

from ensembleflow.errors import SearchError
from ensembleflow.search.ownership import claim_study
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import open_study
from support.slot_study import CHECKSUM, run_function, search_config, search_plan


def study(folder: Path) -> optuna.Study:
    return open_study(open_storage(folder), search_plan(search_config("random", 4)), CHECKSUM)


def test_a_second_project_on_the_same_storage_is_refused_in_one_message(tmp_path: Path) -> None:
    claim_study(study(tmp_path), tmp_path / "one/store")
    with pytest.raises(SearchError, match="in another folder") as refused:
        claim_study(study(tmp_path), tmp_path / "two/store")
    message = str(refused.value)
    assert str(tmp_path / "one/store") in message
    assert str(tmp_path / "two/store") in message
    assert "a database of its own" in message
    claim_study(study(tmp_path), tmp_path / "one/store")


def test_a_moved_results_folder_keeps_its_study(tmp_path: Path) -> None:
    claim_study(study(tmp_path), tmp_path / "one/store")
    (tmp_path / "one").rename(tmp_path / "moved")
    claim_study(study(tmp_path), tmp_path / "moved/store")


def test_a_study_whose_folder_is_lost_is_refused_and_how_to_go_on_is_told(tmp_path: Path) -> None:
    store_dir = tmp_path / "one/store"
    claim_study(study(tmp_path), store_dir)
    shutil.rmtree(store_dir)
    with pytest.raises(SearchError, match="in another folder") as refused:
        claim_study(study(tmp_path), store_dir)
    assert "delete the study" in str(refused.value)
    optuna.delete_study(study_name=study(tmp_path).study_name, storage=open_storage(tmp_path))
    claim_study(study(tmp_path), store_dir)


def _claim(folder: str) -> None:
    claim_study(study(Path(folder)), Path(folder, "one/store"))


def test_jobs_that_start_at_once_name_the_folder_once(tmp_path: Path) -> None:
    processes = [run_function(_claim, str(tmp_path)) for _ in range(6)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert [path.name for path in (tmp_path / "one/store").iterdir()] == ["name.txt"]
