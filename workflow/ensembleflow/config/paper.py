"""The config's block `paper`: which studies the paper's tables and figures are drawn from, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ensembleflow.config.base import Block, distinct
from ensembleflow.config.budget import Budget
from ensembleflow.config.paths import PathText
from ensembleflow.config.search import Algorithm

__all__ = ["PaperConfig"]

Share = Annotated[float, Field(gt=0, le=1)]


class PaperConfig(Block):
    """The paper's tables and figures, made again by `snakemake paper` from one study an algorithm and seed."""

    algorithms: Annotated[list[Algorithm], AfterValidator(distinct)] = Field(
        ["random", "hyperband", "gp", "bohb", "smac", "tpe", "genetic"],
        min_length=1,
        description="Algorithms compared (table 2); those of `random`, `hyperband` and `genetic` among them are table "
        "1's too.",
    )
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(distinct)] = Field(
        [0, 1, 2],
        min_length=1,
        description="Seeds of the studies: a study for each algorithm and seed. The first is that of the figures.",
    )
    algorithm: Algorithm = Field(
        "hyperband",
        description="Algorithm whose studies figures 3 to 6, tables 3 and 4 and sections 3.3.1 and 3.3.4 are drawn "
        "from; one of `algorithms`.",
    )
    workers: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(distinct)] = Field(
        [1, 6, 24],
        description="Numbers of workers for which table 1 is simulated, beside the one that was measured. The trials "
        "a job are `search.trials_per_job`, or fewer where some workers would have none.",
    )
    snapshots: Annotated[list[Share], AfterValidator(distinct)] = Field(
        [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0],
        min_length=1,
        description="Tuning times at which figures 3 and 4 select again, as shares of the search's duration.",
    )
    keep_fractions: Annotated[list[Share], AfterValidator(distinct)] = Field(
        [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0],
        min_length=1,
        description="Shares of the library that the pruning study keeps (section 3.3.1).",
    )
    pruning_budget: Budget = Field("4x", description="The pruning study's budget: multiples are of all models' median.")
    allocated_budgets: Annotated[list[Budget], AfterValidator(distinct)] = Field(
        ["2x", "8x"],
        min_length=1,
        description="Budgets of the ensembles that table 3 places on `allocation.device_counts` devices each.",
    )
    simulated_gpus: Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(distinct)] = Field(
        [0, 1, 2, 3, 4, 5, 6],
        description="Numbers of GPUs, beside the first of `allocation.devices`, on which table 3 places the same "
        "ensembles by simulated benches.",
    )
    simulated_gpu_memory_mb: int = Field(16_000, ge=1, description="Memory of a simulated GPU in MB.")
    simulated_gpu_speed: float = Field(
        10.0,
        gt=0,
        description="How many times as fast a simulated GPU is as what is profiled in its place: this machine's first "
        "GPU, or one core where there is none.",
    )
    autokeras_trials: int = Field(
        10,
        ge=1,
        description="Networks that Auto-Keras tries (`snakemake run_autokeras`), each for at most `search.max_epochs` "
        "epochs.",
    )
    autokeras_python: PathText = Field(
        "python",
        description="The Python that has Auto-Keras (envs/autokeras.txt); `python` is that of the conda environment.",
    )
    missing_studies: Literal["make", "leave_out"] = Field(
        "make",
        description="What becomes of studies that are not finished: `make` makes them first; `leave_out` draws every "
        "item from those that are there, and its page says what is missing and which command makes it.",
    )

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if self.algorithm not in self.algorithms:
            raise ValueError("`algorithm` must be one of `algorithms`")
        return self
