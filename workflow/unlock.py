"""Remove the lock that a killed Snakemake left on this folder, unless one still runs here.

Snakemake's lock does not say whose it is; so a lock counts as left over when no Snakemake of this machine
works in this folder.
"""

import subprocess
import sys
from pathlib import Path

import psutil

LOCKS = Path(".snakemake/locks")


def runs_here(process: psutil.Process) -> bool:
    """Whether a process is Snakemake itself (not one of its jobs), started in this folder."""
    try:
        command = process.cmdline()[1:3]
        is_snakemake = Path(command[0]).name == "snakemake" or command == ["-m", "snakemake"]
        return is_snakemake and Path(process.cwd()).samefile(Path.cwd())
    except (IndexError, OSError, psutil.Error):
        return False


if LOCKS.is_dir() and any(LOCKS.iterdir()) and not any(map(runs_here, psutil.process_iter())):
    sys.stderr.write("a Snakemake was killed here: removing its lock, finished work is kept\n")
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock", "--quiet", "all"], check=True)
