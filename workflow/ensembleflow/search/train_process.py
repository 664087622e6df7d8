"""One of the processes of a search job that train side by side: it trains the slots that no other one holds.

Run as a file by `side_by_side.train_side_by_side`, as a child of `child_process`: its settings are the job's.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from ensembleflow.child_process import end_with_parent, run_child
from ensembleflow.search.job_spec import JobSpec
from ensembleflow.search.running_job import start_job
from ensembleflow.search.stop import StopSignals
from ensembleflow.search.trial import DoesNotFitBesideOthersError

__all__ = ["train_free_slots"]

logger = logging.getLogger("ensembleflow.search")


def train_free_slots(settings: dict[str, Any], answer: Callable[[object], None]) -> None:
    """Train, beside other processes of the same job, those of its slots that none of them works on.

    Args:
        settings: of the `JobSpec`.
        answer: not called: the trials' records are the answer.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")  # to the job's log
    logging.getLogger("ensembleflow").setLevel(logging.INFO)
    end_with_parent()
    with StopSignals() as signals, start_job(JobSpec(**settings)) as job:
        for slot in job.plan.slots:
            try:
                job.train(slot, signals, alone=False)
            except DoesNotFitBesideOthersError:
                logger.warning("trial %d ran out of the memory that it shares: it is trained alone later", slot)


if __name__ == "__main__":
    sys.exit(run_child(train_free_slots))
