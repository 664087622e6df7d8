"""Run all tests on as many cores as there are: `python tests/on_all_cores.py [options of pytest]`.

Folders, and the files of those that share nothing costly, are run by pytest processes side by side, the longest first.
What a folder's tests share (one Slurm cluster, one finished study) is made once, for they run in one process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent

# What takes minutes starts first, so that nothing is left to wait for alone.
LONGEST_FIRST = ("workflow", "slurm", "search", "serving", "report", "selection", "readme", "models")
# Their files share no costly fixture.
FILE_BY_FILE = ("search",)
WORDS = ("passed", "failed", "skipped", "error", "xfailed")
NO_TEST = 5


@dataclass(frozen=True)
class Outcome:
    """How one pytest process ended.

    Attributes:
        part: what it ran, from the repository's folder.
        status: its exit status.
        output: what it printed.
        seconds: how long it took.
    """

    part: str
    status: int
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no test failed; options such as `-k` may leave a part without any."""
        return self.status in (0, NO_TEST)

    @property
    def counts(self) -> dict[str, int]:
        """The tests by what became of them, of pytest's last line: `{"passed": 31}`."""
        last = next((line for line in reversed(self.output.splitlines()) if re.search(r" in [\d.]+s", line)), "")
        found = re.findall(rf"(\d+) ({'|'.join(WORDS)})", last)
        return {word: int(number) for number, word in found}


def parts() -> list[str]:
    """The folders and files that are run by one process each, the longest first."""
    folders = sorted(path for path in TESTS.iterdir() if path.is_dir() and any(path.rglob("test_*.py")))
    folders.sort(key=lambda path: LONGEST_FIRST.index(path.name) if path.name in LONGEST_FIRST else len(LONGEST_FIRST))
    paths = [
        each
        for folder in folders
        for each in (sorted(folder.rglob("test_*.py")) if folder.name in FILE_BY_FILE else [folder])
    ]
    return [str(path.relative_to(REPOSITORY)) for path in paths]


def run(part: str, options: Sequence[str]) -> Outcome:
    """Run one part in a process of its own."""
    started_at = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", part, *options]
    done = subprocess.run(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    return Outcome(part, done.returncode, done.stdout, time.monotonic() - started_at)


def main(options: Sequence[str]) -> int:
    """Run all parts, tell each one's end, and show what failed or was skipped.

    Returns:
        1 if a test failed, else 0.
    """
    todo, started_at, outcomes = parts(), time.monotonic(), []
    n_processes = min(os.cpu_count() or 1, len(todo))
    print(f"{len(todo)} parts of the tests, {n_processes} at a time", flush=True)
    pool = ThreadPoolExecutor(n_processes)
    try:
        for future in as_completed([pool.submit(run, part, options) for part in todo]):
            outcome = future.result()
            outcomes.append(outcome)
            far = f"[{len(outcomes):{len(str(len(todo)))}}/{len(todo)}] {clock(time.monotonic() - started_at)}"
            print(f"{far}  {outcome.part}: {said(outcome.counts)} in {clock(outcome.seconds)}", flush=True)
            if not outcome.passed or any(option.startswith("--durations") for option in options):
                print(outcome.output, flush=True)
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        print("stopped")
        return 130
    skipped = [line for outcome in outcomes for line in outcome.output.splitlines() if line.startswith("SKIPPED")]
    print("\n".join(skipped) or "none was skipped")
    totals = {word: sum(each.counts.get(word, 0) for each in outcomes) for word in WORDS}
    print(f"{said(totals)} in {clock(time.monotonic() - started_at)}")
    if failed := sorted(each.part for each in outcomes if not each.passed):
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def said(counts: dict[str, int]) -> str:
    """Counts in words, without those of nothing."""
    return ", ".join(f"{number} {word}" for word, number in counts.items() if number) or "no test"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
