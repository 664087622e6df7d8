"""How a Slurm job ended, as far as Slurm tells."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from ensembleflow.config.times import minutes_of

__all__ = ["SlurmEnd", "slurm_end"]

_PATIENCE_SECONDS = 20.0
# Of the kernel (cgroups), and of Slurm itself (OverMemoryKill).
_OUT_OF_MEMORY = re.compile(r"slurmstepd\S*: error: .*(?:oom[-_]kill|exceeded (?:job )?memory limit)", re.IGNORECASE)
_SACCT_FIELDS = ("JobState", "ExitCode", "NodeList", "RunTime", "TimeLimit", "MinMemoryNode")
_SACCT_FORMAT = "State,ExitCode,NodeList,Elapsed,Timelimit,ReqMem"  # the same, as sacct calls them


@dataclass(frozen=True)
class SlurmEnd:
    """The end of one Slurm job.

    Attributes:
        job_id: Slurm's number of it.
        state: Slurm's word, such as `TIMEOUT`; empty where it does not tell.
        fields: what else is known, by the names that `scontrol show job` gives; empty where nothing is.
        signal: what ended the job's own process, such as `SIGKILL`, where the job's output tells; else empty.
    """

    job_id: str
    state: str
    fields: dict[str, str]
    signal: str = ""

    @property
    def timed_out(self) -> bool:
        """Whether the job's time limit ended it."""
        return self.state == "TIMEOUT"

    @property
    def limit_minutes(self) -> int | None:
        """The job's time limit; None where it is not known, or there was none."""
        try:
            return int(minutes_of(self.fields.get("TimeLimit", "")))
        except ValueError:  # `UNLIMITED`, `Partition_Limit`
            return None

    def __str__(self) -> str:
        """What ended the job, and where it ran."""
        nodes, ran = self.fields.get("NodeList", ""), self.fields.get("RunTime", "")
        where = f" on {nodes}" if nodes not in ("", "(null)", "None assigned") else ""
        after = f", after {ran}" if ran else ""
        return f"{self._cause()} (Slurm job {self.job_id}{where}{after})"

    def _cause(self) -> str:
        match self.state:
            case "TIMEOUT":
                limit = self.limit_minutes
                return f"its time limit{f' of {limit} min' if limit else ''} was over"
            case "CANCELLED":
                by = self.fields.get("CancelledBy")
                return "it was cancelled" + (f" by user {by}" if by else "")
            case "OUT_OF_MEMORY":
                asked = self.fields.get("MinMemoryNode")
                return "it used more memory than it had asked for" + (f" ({asked})" if asked else "")
            case "NODE_FAIL":
                return "its node failed"
            case "BOOT_FAIL":
                return "its node did not boot"
            case "PREEMPTED":
                return "it was preempted"
            case "DEADLINE":
                return "its deadline was over"
            case "FAILED":
                if self.signal:
                    memory = ": perhaps its node's memory was full" if self.signal == "SIGKILL" else ""
                    return f"{self.signal} ended its process{memory}"
                code = self.fields.get("ExitCode", "").partition(":")[0]
                return "it failed by itself" + (f", with exit code {code}" if code else "")
        return f"Slurm says {self.state}" if self.state else "Slurm does not tell what ended it"


def slurm_end(job_id: str, state: str = "", output: str = "") -> SlurmEnd:
    """Ask Slurm how a job ended: its controller, which remembers for some minutes, else its accounting.

    Args:
        job_id: of a job that has ended.
        state: what is known already, taken where neither answers.
        output: what Slurm kept of the job's output: its daemons write there as well.
    """
    fields = _from_controller(job_id) or _from_accounting(job_id)
    told, _, by = fields.get("JobState", "").partition(" by ")
    if by:
        fields["CancelledBy"] = by
    state = told or state
    if state in ("FAILED", "CANCELLED") and _OUT_OF_MEMORY.search(output):
        state = "OUT_OF_MEMORY"  # where a job's step, not the job itself, was ended
    # In the words of Python's subprocess, which Snakemake shows.
    signals = re.findall(r"died with <Signals\.(SIG\w+): \d+>", output)
    return SlurmEnd(job_id, state, fields, signals[-1] if signals else "")


def _from_controller(job_id: str) -> dict[str, str]:
    said = _answer("scontrol", "--oneliner", "show", "job", job_id)
    return dict(re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)", said.partition("\n")[0]))


def _from_accounting(job_id: str) -> dict[str, str]:
    said = _answer("sacct", "-j", job_id, "-X", "--noheader", "--parsable2", f"--format={_SACCT_FORMAT}")
    values = said.partition("\n")[0].split("|")
    return dict(zip(_SACCT_FIELDS, values, strict=True)) if len(values) == len(_SACCT_FIELDS) else {}


def _answer(*command: str) -> str:
    """What a client of Slurm's prints; nothing where it is not there, fails, or waits too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
