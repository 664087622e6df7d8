"""The config's block `selection`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ensembleflow.config.base import Block, distinct
from ensembleflow.config.budget import Budget

__all__ = ["CascadeConfig", "SelectionConfig"]


class CascadeConfig(Block):
    """Images whose class is clear early are not shown to the remaining members."""

    max_changed: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="The largest share of images that may get another class than the full ensemble gives them: "
        "`0.001`, for example; null makes no cascades. It is guaranteed by images that `dataset.calibration_fraction` "
        "sets aside, of which it takes some `3 / max_changed` at least.",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="How sure it is that the share is no larger.")


class SelectionConfig(Block):
    """The ensemble selection."""

    budgets: Annotated[list[Budget], AfterValidator(distinct)] = Field(
        ["1x", "2x", "4x", "8x"],
        min_length=1,
        description="The most that an ensemble's summed cost may be: seconds (`320`), or a multiple of the "
        "kept models' median cost (`4x`); of another column of costs.csv by name (`parameter_bytes=2x`); several at "
        "once (`4x,parameter_bytes=2x`).",
    )
    cost_weights: Annotated[list[Annotated[float, Field(ge=0, le=1)]], AfterValidator(distinct)] = Field(
        [0.1, 0.01, 0.001],
        min_length=1,
        description="Weights w of the cost in SMOBF's score (the paper's equation 2); the best result by "
        "`loss` is taken.",
    )
    loss: Literal["cross_entropy", "error", "macro_f1_error", "brier"] = Field(
        "cross_entropy", description="The validation loss E of equation 2."
    )
    local_search: bool = Field(
        False,
        description="Go on from SMOBF's ensemble by swapping, dropping and adding members as long as that lowers the "
        "loss within the budget.",
    )
    cascade: CascadeConfig = Field(
        default_factory=CascadeConfig, description="Ensembles that stop early where an image's class is clear."
    )
    branch_and_bound_nodes: int = Field(
        20_000,
        ge=0,
        description="Nodes of its tree that branch and bound may visit per budget to find the exact optimum, or a "
        "bound on it, and so SMOBF's gap to it; 0 leaves it out.",
    )
