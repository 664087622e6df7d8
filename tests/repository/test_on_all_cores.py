"""`make test` runs each test once."""

from __future__ import annotations

from pathlib import Path

import pytest

import on_all_cores
from on_all_cores import NO_TEST, REPOSITORY, TESTS, Outcome, main, parts


def test_every_file_with_tests_is_in_one_part() -> None:
    files = sorted(TESTS.rglob("test_*.py"))
    for file in files:
        within = [part for part in parts() if file.is_relative_to(REPOSITORY / part)]
        assert len(within) == 1, file
    assert len(files) > 100


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("31 passed, 1 skipped in 4.31s", {"passed": 31, "skipped": 1}),
        ("1 failed, 2 passed, 3 warnings, 1 error in 75.10s (0:01:15)", {"failed": 1, "passed": 2, "error": 1}),
        ("no tests ran in 0.02s", {}),
    ],
)
def test_the_counts_are_those_of_the_last_line(line: str, counts: dict[str, int]) -> None:
    assert Outcome("tests/io", 0, f"...\n7 passed of old in 1s\n{line}\n", 1.0).counts == counts


def test_a_part_that_fails_is_shown_and_fails_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {"tests/a": (0, "2 passed in 1.0s"), "tests/b": (1, "E   of b\n1 failed in 1.0s"), "tests/c": (NO_TEST, "")}

    def run(part: str, options: list[str]) -> Outcome:
        return Outcome(part, *ends[part], seconds=1.0)

    monkeypatch.setattr(on_all_cores, "parts", lambda: list(ends))
    monkeypatch.setattr(on_all_cores, "run", run)
    assert main([]) == 1
    printed = capsys.readouterr().out
    assert "E   of b" in printed
    assert "2 passed, 1 failed in" in printed
    assert printed.endswith("failed: tests/b\n")
    del ends["tests/b"]
    assert main([]) == 0


def test_a_real_part_is_run() -> None:
    here = Path(__file__).relative_to(REPOSITORY)
    outcome = on_all_cores.run(str(here), ["-k", "last_line"])
    assert outcome.passed
    assert outcome.counts["passed"] == 3
