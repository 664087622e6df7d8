"""A search that Snakemake runs on the lab's cluster, to be disturbed while it trains."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from support.slurm_lab import Job, SlurmLab

QUICK_SNAKEMAKE = Path(__file__).with_name("quick_snakemake.py")
SEARCH_RULE = "train_trials"
_PATIENCE_SECONDS = 480.0


class ClusterSearch:
    """A clone of the repository whose search runs as Slurm jobs.

    A search job that is submitted again is another Slurm job with the same outputs: a second copy of it.

    Args:
        lab: the cluster.
        folder: the clone.
        config_file: its config, below `folder`.
        study: the name of the study that the config describes.
        profile: the Snakemake profile that the jobs are submitted with.
    """

    def __init__(
        self, lab: SlurmLab, folder: Path, config_file: str, study: str, profile: str | Path = "slurm"
    ) -> None:
        self.lab = lab
        self.folder = folder
        self.config_file = config_file
        self.profile = str(profile)
        self.search_dir = folder / "results" / study / "search"
        self.log_dir = folder / "results/logs" / study / SEARCH_RULE
        self._process: subprocess.Popen[str] | None = None
        self._aborted = False
        self._starting = threading.Lock()

    def start(self, *targets: str) -> None:
        """Type `snakemake --profile PROFILE TARGETS`, and do not wait for it; refused after `abort`."""
        command = [sys.executable, str(QUICK_SNAKEMAKE), "--profile", self.profile, "--configfile", self.config_file]
        with self._starting, open(self.folder / "snakemake.log", "a", encoding="utf-8") as log:
            self._refuse_if_aborted()
            self._process = subprocess.Popen(
                [*command, "--", *targets],
                cwd=self.folder,
                env=self.lab.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def job_outputs(self, n_jobs: int) -> list[str]:
        """What the first search jobs make: targets for `start`."""
        trials = (self.search_dir / "trials").relative_to(self.folder)
        return [f"{trials}/job-{job}.json" for job in range(n_jobs)]

    def kill(self) -> None:
        """`kill -9` of Snakemake, if it runs; its Slurm jobs go on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def abort(self) -> None:
        """Kill Snakemake, and make other threads' waits and starts fail: the test has failed elsewhere."""
        with self._starting:
            self._aborted = True
        self.kill()

    def _refuse_if_aborted(self) -> None:
        assert not self._aborted, "given up: something else has failed"

    def sweep(self) -> None:
        """End all that is left of the clone: the Snakemake of a lost node's job outlives the node's return."""
        self.abort()
        own = [str(job.id) for job in self.lab.jobs(settled=False) if job.fields["WorkDir"] == str(self.folder)]
        if own:
            self.lab.client("scancel", *own, check=False)  # those that have ended are no failure
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.folder) in part for part in process.info["cmdline"] or ()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def unlock(self) -> None:
        """Remove the lock that a killed Snakemake left."""
        subprocess.run(
            [sys.executable, "-m", "snakemake", "--unlock", "--cores", "1", "--configfile", self.config_file],
            cwd=self.folder,
            capture_output=True,
            check=True,
        )

    def wait(self) -> int:
        """Wait for Snakemake to end by itself; its exit code."""
        assert self._process is not None
        return self._process.wait(_PATIENCE_SECONDS)

    def finish(self) -> None:
        """Wait for Snakemake, which must end well."""
        assert self.wait() == 0, self.printed

    @property
    def printed(self) -> str:
        """All that Snakemake has said."""
        return (self.folder / "snakemake.log").read_text(encoding="utf-8")

    def copies(self, job: int, *, settled: bool = False) -> list[Job]:
        """The Slurm jobs of a search job, in the order of their submission; `settled` as in `SlurmLab.jobs`."""
        return [
            each
            for each in self.lab.jobs(settled=settled)
            if each.fields["WorkDir"] == str(self.folder)
            and each.rule == SEARCH_RULE
            and each.comment.rpartition("_")[2] == str(job)
        ]

    def copy(self, job: int, number: int = 0) -> Job:
        """Wait until a copy of a search job runs."""
        self.wait_until(
            f"copy {number} of search job {job}",
            lambda: [each.state for each in self.copies(job)[number : number + 1]] == ["RUNNING"],
        )
        return self.copies(job)[number]

    def record(self, slot: int) -> dict[str, Any]:
        """What is recorded of a slot's trial: at least its `state` and `epochs`."""
        for path in self.search_dir.glob(f"store/*/trial-{slot:05d}/record.json"):
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return record
        return {"state": "WAITING", "epochs": []}

    def n_epochs(self, slot: int) -> int:
        """Epochs recorded of a slot's trial."""
        return len(self.record(slot)["epochs"])

    def log(self, job: int) -> str:
        """What a search job's copies have logged."""
        path = self.log_dir / f"job-{job}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def freeze(self, copy: Job, slot: int, n_more_epochs: int = 1) -> psutil.Process:
        """Stop (SIGSTOP) a copy's process in a slot's trial, epochs further on: a fault is sure to find it there."""
        self.wait_until(f"Slurm job {copy.id} to train slot {slot}", lambda: self._trains(copy, slot))
        n_epochs = self.n_epochs(slot) + n_more_epochs
        self.wait_until(f"epoch {n_epochs} of slot {slot}", lambda: self.n_epochs(slot) >= n_epochs, poll_seconds=0.02)
        process = self._holder(slot)
        process.suspend()
        while self._journal_lock.exists():  # not while it writes there: everybody else would wait for it
            self._refuse_if_aborted()
            process.resume()
            time.sleep(0.01)
            process.suspend()
        assert self._trains(copy, slot), f"Slurm job {copy.id} has left slot {slot} before it could be frozen"
        finished = self.record(slot)["state"] not in {"WAITING", "RUNNING"}
        assert not finished, f"slot {slot} was finished before it could be frozen"
        return process

    @property
    def _journal_lock(self) -> Path:
        return self.search_dir / "study.journal.lock"

    def _trains(self, copy: Job, slot: int) -> bool:
        with suppress(OSError, ValueError, psutil.Error):
            return self._holder(slot).environ().get("SLURM_JOB_ID") == str(copy.id)
        return False

    def _holder(self, slot: int) -> psutil.Process:
        """The process that holds the lease on a slot."""
        (lease,) = self.search_dir.glob(f"store/*/trial-{slot:05d}.lease")
        return psutil.Process(json.loads(lease.read_text(encoding="utf-8"))["pid"])

    def end_time(self, copy: Job) -> None:
        """Let a running job's time be over, which Slurm notices at its next look, twice a minute.

        The shortest limit is a minute; but a running job's end can be moved.
        """
        soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
        self.lab.client("scontrol", "update", f"JobId={copy.id}", f"EndTime={soon}")

    def wait_until(self, what: str, sign: Callable[[], bool], poll_seconds: float = 0.5) -> None:
        """Wait for a sign."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not sign():
            self._refuse_if_aborted()
            ended = self._process is not None and self._process.poll() is not None
            assert not ended and time.monotonic() < deadline, f"waited for {what}:\n{self.printed}"
            time.sleep(poll_seconds)


@contextmanager
def aborted_together(searches: Sequence[ClusterSearch]) -> Iterator[None]:
    """Give all searches up when the block fails: threads that disturb them would wait on, and their pool for them."""
    try:
        yield
    except BaseException:
        for search in searches:
            search.abort()
        raise
