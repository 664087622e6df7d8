"""A result that several jobs ask for alike is made once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ensembleflow.allocation.shared_result import folder_checksum, shared_result

ASK = """
import sys, time
from pathlib import Path
from ensembleflow.allocation.shared_result import shared_result

store, taker = sys.argv[1:]


def make(folder):
    with open(f"{store}-made", "a") as file:
        file.write(f"{taker} ")
    time.sleep(0.3)
    (folder / "result").write_text(taker)


with shared_result(store, {"of": "all"}, taker, make) as folder:
    print((folder / "result").read_text())
"""


class Maker:
    def __init__(self, store: Path) -> None:
        self.store, self.n_made = store, 0

    def __call__(self, folder: Path) -> None:
        self.n_made += 1
        (folder / "result").write_text(str(self.n_made))

    def ask(self, taker: str, **key: object) -> str:
        with shared_result(self.store, key, taker, self) as folder:
            return (folder / "result").read_text()


def test_processes_that_ask_at_the_same_time_share_one_making(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK, str(tmp_path / "store")]
    jobs = [subprocess.Popen([*command, str(taker)], stdout=subprocess.PIPE, text=True) for taker in range(4)]
    printed = {job.communicate(timeout=120)[0] for job in jobs}
    (maker,) = (tmp_path / "store-made").read_text().split()
    assert printed == {f"{maker}\n"}


def test_only_an_equal_key_is_shared(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    keys = [{"a": 1, "b": [1, 2]}, {"a": 1, "b": [2, 1]}, {"a": 2, "b": [1, 2]}, {"a": 1}]
    assert [maker.ask("1x", **key) for key in keys] == ["1", "2", "3", "4"]
    assert maker.ask("2x", b=[1, 2], a=1) == "1"


def test_who_asks_again_gets_a_new_one_and_so_do_those_that_had_not_asked(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    asked = ("1x", "2x", "2x", "4x", "1x", "1x")
    assert [maker.ask(taker, a=1) for taker in asked] == ["1", "1", "2", "2", "2", "3"]


def test_a_making_that_fails_leaves_nothing_to_take(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "result").write_text("half")
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"), shared_result(tmp_path, {"a": 1}, "1x", fail):
        pass
    assert list(tmp_path.iterdir()) == []
    assert Maker(tmp_path).ask("2x", a=1) == "1"


@pytest.mark.parametrize("edit", ["content", "name", "another", "fewer"])
def test_the_checksum_of_a_folder_tells_every_edit(tmp_path: Path, edit: str) -> None:
    (tmp_path / "variables").mkdir()
    for name in ("graph", "variables/weights"):
        (tmp_path / name).write_text("1")
    before = folder_checksum(tmp_path)
    assert folder_checksum(tmp_path) == before
    weights = tmp_path / "variables/weights"
    if edit == "content":
        weights.write_text("2")
    elif edit == "name":
        weights.rename(tmp_path / "weights")
    elif edit == "another":
        (tmp_path / "more").touch()
    else:
        weights.unlink()
    assert folder_checksum(tmp_path) != before
