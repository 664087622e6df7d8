"""Writing aside, reading artefacts, and what a job tells its user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import pandas as pd
import pytest

from ensembleflow.errors import ArtefactError, StorageError
from ensembleflow.io import (
    atomic_directory,
    atomic_path,
    create_hdf5,
    open_hdf5,
    read_csv,
    read_json,
    write_csv,
    write_json,
)
from ensembleflow.io.folder import require_writable


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def fail() -> None:
    raise RuntimeError


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    with atomic_path(path) as aside:
        aside.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert names(path.parent) == ["table.csv"]


def test_a_failed_write_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("former")
    with pytest.raises(RuntimeError), atomic_path(path) as aside:
        aside.write_text("half")
        fail()
    assert path.read_text() == "former"
    assert names(tmp_path) == ["table.csv"]


def test_a_failed_write_leaves_the_former_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with atomic_directory(path) as aside:
        (aside / "one").touch()
    with pytest.raises(RuntimeError), atomic_directory(path) as aside:
        (aside / "two").touch()
        fail()
    assert names(path) == ["one"]
    assert names(tmp_path) == ["bundle"]
    with atomic_directory(path) as aside:
        (aside / "two").touch()
    assert names(path) == ["two"]
    assert names(tmp_path) == ["bundle"]


def test_two_processes_may_write_the_same_folder_at_once(tmp_path: Path) -> None:
    script = """
import sys
from ensembleflow.io import atomic_directory
for number in range(200):
    with atomic_directory(sys.argv[1]) as aside:
        (aside / "number").write_text(str(number))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "models")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert names(tmp_path) == ["models"]
    assert (tmp_path / "models/number").read_text() == "199"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written") as error, atomic_path(tmp_path / "file" / "x.csv"):
        pass
    assert "x.csv" in str(error.value)


def test_new_files_have_the_permissions_that_the_user_set(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "value.json", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "value.json").stat().st_mode & 0o777 == 0o640


def test_json_and_csv_come_back_as_they_were(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"a": [1, 0.1]})
    assert read_json(tmp_path / "value.json", ["a"]) == {"a": [1, 0.1]}
    table = pd.DataFrame({"a": [1 / 3, None], "b": ["x", "y"]})
    write_csv(tmp_path / "table.csv", table)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "table.csv", ["a", "b"]), table)
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "nan.json", float("nan"))
    assert not (tmp_path / "nan.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "missing"), ("", "truncated"), ('{"a": 1', "truncated"), ('{"b": 1}', "lacks keys"), ("[]", "lacks keys")],
)
def test_a_broken_json_artefact_is_named_with_how_to_make_it_again(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "budget-4x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ArtefactError, match=message) as error:
        read_json(path, ["a"])
    assert str(path) in str(error.value)
    assert "snakemake" in str(error.value)


def test_the_same_content_gives_the_same_hdf5_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        with create_hdf5(tmp_path / name, "dataset", 1) as file:
            file.create_group("train").create_dataset("labels", data=[1, 2, 3])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_disk_that_fills_up_anywhere_in_an_hdf5_file_is_told_of(tmp_path: Path) -> None:
    """HDF5 itself crashes when the last bytes of a file cannot be written."""
    script = """
import resource, sys
import numpy as np
from ensembleflow.errors import StorageError
from ensembleflow.io import create_hdf5
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
refused = 0
for n_images in range(100, 70_000, 997):
    try:
        with create_hdf5(sys.argv[1], "dataset", 1) as file:
            file.create_dataset("images", data=np.ones(n_images, np.uint8))
            file.create_group("train").create_dataset("labels", data=[1, 2, 3])
    except StorageError as error:
        assert error.found == "File too large", error
        refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x.h5")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert 5 < int(done.stdout) < 20
    assert names(tmp_path) == ["x.h5"]


def test_an_hdf5_file_that_is_broken_or_foreign_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.h5"
    with pytest.raises(ArtefactError, match="missing"), open_hdf5(path, "predictions", 1):
        pass
    with create_hdf5(path, "predictions", 2) as file:
        file.create_dataset("values", data=list(range(10_000)))
    with pytest.raises(ArtefactError, match="another schema") as error, open_hdf5(path, "predictions", 1):
        pass
    assert "version 2" in str(error.value)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ArtefactError, match="truncated"), open_hdf5(path, "predictions", 2):
        pass
    with h5py.File(path, "w"):
        pass
    with pytest.raises(ArtefactError, match="another schema"), open_hdf5(path, "predictions", 1):
        pass


def test_a_results_folder_below_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "not" / "yet")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="results folder cannot be written") as error:
        require_writable(tmp_path / "file" / "results")
    assert "results_dir" in str(error.value)


JOB = """
import logging, os, sys
from ensembleflow.errors import LibraryError
from ensembleflow.io import rule_log
with rule_log(sys.argv[1]):
    os.write(1, b"a library's chatter\\n")
    logging.getLogger("ensembleflow.search").info("a detail")
    logging.getLogger("ensembleflow.search").info("3 of 4 done", extra={"progress": True})
    exec(sys.argv[2])
print("after")
"""


def run_job(log: Path, body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", JOB, str(log), body], capture_output=True, text=True, check=False, timeout=60
    )


def test_ctrl_c_ends_a_job_without_a_traceback(tmp_path: Path) -> None:
    log = tmp_path / "rule.log"
    # A shell's background jobs, which a test run may be among, begin with the signal ignored.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    done = run_job(log, heard + "os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr + log.read_text()
    assert "stopped by Ctrl-C" in log.read_text()


def test_a_job_shows_progress_and_logs_the_rest(tmp_path: Path) -> None:
    done = run_job(tmp_path / "job.log", "pass")
    assert done.returncode == 0
    assert done.stderr == "3 of 4 done\n"
    assert done.stdout == "after\n"
    log = (tmp_path / "job.log").read_text()
    assert all(text in log for text in ("a library's chatter", "a detail", "3 of 4 done"))


def test_a_users_mistake_ends_a_job_with_one_message_and_no_traceback(tmp_path: Path) -> None:
    done = run_job(tmp_path / "job.log", "raise LibraryError('no model is left', where='models.csv', hint='keep more')")
    assert done.returncode == 1
    assert "no model is left" in done.stderr
    assert "models.csv" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert "no model is left" in (tmp_path / "job.log").read_text()


def test_a_file_whose_name_is_no_text_is_told_all_the_same(tmp_path: Path) -> None:
    done = run_job(tmp_path / "job.log", "raise LibraryError('a file is broken', where=os.fsdecode(b'caf\\xe9.png'))")
    assert done.returncode == 1
    for told in (done.stderr, (tmp_path / "job.log").read_text()):
        assert r"caf\udce9.png" in told
        assert "Traceback" not in told


def test_a_full_disk_ends_a_job_with_one_message_and_no_traceback(tmp_path: Path) -> None:
    done = run_job(tmp_path / "job.log", "raise OSError(28, 'No space left on device', 'x.h5')")
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "finished work is reused" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    done = run_job(tmp_path / "job.log", "raise ZeroDivisionError")
    assert done.returncode == 1
    assert "ZeroDivisionError" in (tmp_path / "job.log").read_text()
    assert "Traceback" in done.stderr
