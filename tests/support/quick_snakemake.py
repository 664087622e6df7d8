"""Snakemake as typed (`quick_snakemake.py --profile slurm …`), but it looks every second whether a job has ended.

By itself the Slurm plugin looks after 1, 11, 21, 31, … seconds, so that a test would mostly wait for it.
"""

from __future__ import annotations

import asyncio

from snakemake.cli import main  # type: ignore[import-untyped]
from snakemake_executor_plugin_slurm import Executor  # type: ignore[import-untyped]


async def _sleep_briefly(executor: Executor) -> None:
    await asyncio.sleep(1)


Executor.sleep = _sleep_briefly

if __name__ == "__main__":
    main()
