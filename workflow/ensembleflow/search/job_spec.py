"""What a search job is to train, and where everything lies."""

from __future__ import annotations

from dataclasses import dataclass

from ensembleflow.planning.search_plan import SearchPlan

__all__ = ["JobSpec"]


@dataclass(frozen=True)
class JobSpec:
    """What a job's processes have to know.

    Attributes:
        plan_json: what `plan_job` made.
        dataset_path: the prepared dataset.
        search_dir: `{study}/search`, where the journal and the store lie.
        storage_url: of Optuna's storage, or None for the journal.
        threads: CPU cores of one process.
        use_gpu: train on a GPU if there is one; otherwise GPUs are hidden.
        n_trials: trials of the whole study, for the progress line only.
        metric: the config's, where the plan does not name it: what Optuna's study and the progress line have.
    """

    plan_json: str
    dataset_path: str
    search_dir: str
    storage_url: str | None = None
    threads: int = 1
    use_gpu: bool = False
    n_trials: int | None = None
    metric: str | None = None

    @property
    def plan(self) -> SearchPlan:
        """The slots and what their results depend on."""
        return SearchPlan.from_json(self.plan_json, self.metric)
