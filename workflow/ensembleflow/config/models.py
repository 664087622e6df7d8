"""The whole config: its blocks, and what they ask of each other.

Every key stands in the file of its block with its type, default, unit and meaning: the one source of the JSON schema,
the comments of `config/config.yaml` and the table of `config/README.md` (`ensembleflow.config.render`).
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ensembleflow.config.allocation import AllocationConfig
from ensembleflow.config.base import Block
from ensembleflow.config.dataset import DatasetConfig
from ensembleflow.config.library import LibraryConfig, n_kept
from ensembleflow.config.paper import PaperConfig
from ensembleflow.config.paths import ResultsFolder
from ensembleflow.config.report import ReportConfig
from ensembleflow.config.resources import ResourcesConfig
from ensembleflow.config.search import SearchConfig
from ensembleflow.config.selection import SelectionConfig
from ensembleflow.config.study_name import StudyName

__all__ = ["Config"]


class Config(Block):
    """Everything a run depends on."""

    seed: int = Field(0, ge=0, description="The study's seed: hyperparameters, weights, batches, augmentation.")
    results_dir: ResultsFolder = Field(
        "results", description="Folder of all artefacts. `~` and `$VARIABLE` are expanded, as in every path."
    )
    dataset: DatasetConfig = Field(default_factory=DatasetConfig, description="The data.")
    search: SearchConfig = Field(default_factory=SearchConfig, description="The hyperparameter search.")
    library: LibraryConfig = Field(default_factory=LibraryConfig, description="The library of models.")
    selection: SelectionConfig = Field(default_factory=SelectionConfig, description="The ensemble selection.")
    allocation: AllocationConfig = Field(
        default_factory=AllocationConfig, description="The allocation of members to devices."
    )
    report: ReportConfig = Field(default_factory=ReportConfig, description="The report's look.")
    paper: PaperConfig = Field(default_factory=PaperConfig, description="The paper's tables and figures.")
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig,
        validate_default=True,
        description="What jobs ask for; never part of a result.",
    )

    @property
    def study(self) -> str:
        """The study's name."""
        return str(StudyName(self.dataset.name, self.search.algorithm, self.seed))

    @field_validator("resources")
    @classmethod
    def _gpus_that_follow(cls, resources: ResourcesConfig, info: ValidationInfo) -> ResourcesConfig:
        """The GPUs that are left to follow from other blocks."""
        if not {"library", "allocation"} <= info.data.keys():
            return resources  # one of them is refused
        library: LibraryConfig = info.data["library"]
        allocation: AllocationConfig = info.data["allocation"]
        implied = {
            "library": int(library.cost.device == "gpu"),
            # A job sees the first GPUs only.
            "allocation": 0 if allocation.simulated else 1 + max(allocation.gpus, default=-1),
        }
        blocks = {stage: getattr(resources, stage) for stage in implied}
        return resources.model_copy(
            update={
                stage: block.model_copy(update={"gpus": implied[stage]})
                for stage, block in blocks.items()
                if block.gpus is None
            }
        )

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if (self.library.cost.device == "gpu") != bool(self.resources.library.gpus):
            raise ValueError(
                "`library.cost.device` must be gpu where `resources.library.gpus` is 1, and cpu where it is 0: a cost "
                "on a GPU needs a GPU, one on the CPU none"
            )
        n_gpus = len(self.allocation.gpus)
        if not self.allocation.simulated and n_gpus > (self.resources.allocation.gpus or 0):
            raise ValueError(
                f"`allocation.devices` has {n_gpus} GPUs but `resources.allocation.gpus` is "
                f"{self.resources.allocation.gpus}: an allocation job would not see them"
            )
        if n_kept(self.search.n_trials, self.library.keep_fraction) == 0:
            raise ValueError("the share `library.keep_fraction` of `search.n_trials` must be at least 1 model, rounded")
        if self.search.precision != "float32" and self.resources.search.gpus == 0:
            raise ValueError("`search.precision` must be float32 where `resources.search.gpus` is 0")
        if self.resources.search.concurrent_trials > self.search.trials_per_job:
            raise ValueError(
                "`resources.search.concurrent_trials` must be at most `search.trials_per_job`: a job has no other "
                "trials to train side by side"
            )
        if self.selection.loss != "cross_entropy" and not self.library.predictions.every_class:
            raise ValueError(
                "`selection.loss` must be cross_entropy where `library.predictions.every_class` is false: the other "
                "losses need the probabilities of every class"
            )
        if self.selection.cascade.max_changed is not None:
            if not self.library.predictions.every_class:
                raise ValueError(
                    "`selection.cascade.max_changed` must be null where `library.predictions.every_class` is false: a "
                    "cascade is made from the probabilities of every class"
                )
            if "openvino_bfloat16" in (self.allocation.engines or ()):
                raise ValueError(
                    "`allocation.engines` must not have openvino_bfloat16 where `selection.cascade.max_changed` is "
                    "set: the cascade's thresholds are those of float32"
                )
            if not self.dataset.calibration_fraction:
                raise ValueError(
                    "`dataset.calibration_fraction` must be above 0 where `selection.cascade.max_changed` is set: a "
                    "cascade is held against images that chose nothing else"
                )
        return self
