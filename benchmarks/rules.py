"""Where a Snakemake run's time goes: what each rule's jobs, and the processes that they start, take of the processor.

    python benchmarks/rules.py -- snakemake --cores 2

Processor time tells more than the clock where other work disturbs the machine. Processes are looked at ten times a
second, so that what a process takes in its last tenth is missed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

_PAUSE_SECONDS = 0.1
_SCRIPT = re.compile(r"\.snakemake/scripts/tmp\w+\.(\w+)\.py")


@dataclass
class _Rule:
    """What the jobs of a rule have taken: processor seconds by process, and when each job was seen first and last."""

    processor_seconds: dict[int, float] = field(default_factory=dict)
    jobs: dict[int, tuple[float, float]] = field(default_factory=dict)


def main() -> None:
    """Run the command, and print one row per rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="+", help="what to run, after --")
    command = parser.parse_args().command
    rules: dict[str, _Rule] = {}
    rule_of: dict[int, str] = {}
    started_at = time.monotonic()
    with subprocess.Popen(command) as run:
        rule_of[run.pid] = "snakemake"
        while run.poll() is None:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(run.pid)
                for process in (root, *root.children(recursive=True)):
                    _look(process, rules, rule_of, time.monotonic() - started_at)
            time.sleep(_PAUSE_SECONDS)
    print(f"{'rule':26} {'jobs':>4} {'processes':>9} {'processor s':>11} {'first start s':>13} {'last end s':>10}")
    for name, rule in sorted(rules.items(), key=lambda each: -sum(each[1].processor_seconds.values())):
        starts, ends = zip(*rule.jobs.values(), strict=True)
        print(
            f"{name:26} {len(rule.jobs):4} {len(rule.processor_seconds):9} "
            f"{sum(rule.processor_seconds.values()):11.1f} {min(starts):13.1f} {max(ends):10.1f}"
        )
    total = sum(sum(rule.processor_seconds.values()) for rule in rules.values())
    print(f"{total:.1f} s of the processor, {time.monotonic() - started_at:.1f} s by the clock")


def _look(process: psutil.Process, rules: dict[str, _Rule], rule_of: dict[int, str], now: float) -> None:
    """Note what a process has taken, in the name of its own rule, or else of its parent's."""
    with suppress(psutil.Error):
        parents = rule_of.get(process.ppid(), "snakemake")
        script = _SCRIPT.search(" ".join(process.cmdline()))
        name = script[1] if script else parents
        rule_of[process.pid] = name
        found = rules.setdefault(name, _Rule())
        times = process.cpu_times()
        found.processor_seconds[process.pid] = times.user + times.system
        if name != parents or not rule_of.get(process.ppid()):
            found.jobs[process.pid] = found.jobs.get(process.pid, (now, now))[0], now


if __name__ == "__main__":
    main()
