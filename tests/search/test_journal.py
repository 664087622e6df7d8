"""A journal that a crash left torn, or that somebody has damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ensembleflow.cli import main
from ensembleflow.errors import SearchError, StorageError
from ensembleflow.search.storage import journal_path, open_storage
from ensembleflow.search.study import claim_slot, open_study
from support.slot_study import CHECKSUM, run_slots, search_config, search_plan


def test_a_journal_with_a_torn_last_line_opens_and_keeps_the_rest(tmp_path: Path) -> None:
    config = search_config("random", 2)
    run_slots(open_study(open_storage(tmp_path), search_plan(config), CHECKSUM), config, range(2), tmp_path)
    path = journal_path(tmp_path)
    whole = path.read_bytes()
    for torn in (b'{"op_code":5,"trial', b'{"op_code":5}', b"\0\0\0"):
        path.write_bytes(whole + torn)
        trials = open_study(open_storage(tmp_path), search_plan(config), CHECKSUM).get_trials()
        assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
        shutil.copyfile(path, tmp_path / "mended")
        assert (tmp_path / "mended").read_bytes().startswith(whole)


def test_a_line_torn_while_others_have_the_journal_open_is_cut_off_by_the_next_write(tmp_path: Path) -> None:
    config = search_config("random", 3)
    first, second = (open_study(open_storage(tmp_path), search_plan(config), CHECKSUM) for _ in range(2))
    claim_slot(first, 0, tmp_path).report(0.5, step=1)
    with open(journal_path(tmp_path), "ab") as journal:
        journal.write(b'{"op_code":6,"trial_id":0,"step":2,"intermedi')
    claim_slot(second, 1, tmp_path).report(0.25, step=1)
    claim_slot(first, 0, tmp_path).report(0.5, step=2)
    for study in (first, second, open_study(open_storage(tmp_path), search_plan(config), CHECKSUM)):
        assert [trial.intermediate_values for trial in study.get_trials()] == [{1: 0.5, 2: 0.5}, {1: 0.25}]


@pytest.mark.parametrize("line", [b"<html>", b"{}", b"[]", b'{"op_code": 99}'])
def test_a_journal_damaged_in_its_midst_is_one_message(line: bytes, tmp_path: Path) -> None:
    config = search_config("random", 1)
    run_slots(open_study(open_storage(tmp_path), search_plan(config), CHECKSUM), config, range(1), tmp_path)
    path = journal_path(tmp_path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:4], line, *lines[5:], b""]))
    with pytest.raises(SearchError, match="the journal is damaged") as told:
        open_storage(tmp_path)
    assert str(path) in str(told.value)
    assert "move it away" in str(told.value)
    assert told.value.__suppress_context__


def test_a_journal_that_cannot_be_made_or_read_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal_path(tmp_path).mkdir()
    with pytest.raises(StorageError, match="cannot be opened") as told:
        open_storage(tmp_path)
    assert str(journal_path(tmp_path)) in str(told.value)
    (tmp_path / "file").touch()
    assert main(["storage-proxy", "--storage", str(tmp_path / "file/study.journal")]) == 1
    assert "the journal cannot be opened" in capsys.readouterr().err
