"""AutoGluon's greedy ensemble selection with replacement, on its own: no trainer, no data frames.

python peers/autogluon_greedy.py PROBLEM.npz {log_loss,accuracy} N_STEPS ANSWER.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from autogluon.core import metrics
from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection


def main(problem_npz: str, metric: str, n_steps: str, answer_json: str) -> None:
    with np.load(problem_npz) as problem:
        predictions, labels = list(problem["probabilities"]), problem["labels"]
    selection = EnsembleSelection(int(n_steps), "multiclass", getattr(metrics, metric))
    selection.use_best = False  # the whole path, not only up to its best step
    started_at = time.perf_counter()
    selection.fit(predictions, labels)
    seconds = time.perf_counter() - started_at
    answer = {"seconds": seconds, "members": [int(model) for model in selection.indices_]}
    Path(answer_json).write_text(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
