"""The config's block `report`."""

from __future__ import annotations

from pydantic import Field

from ensembleflow.config.base import Block

__all__ = ["ReportConfig"]


class ReportConfig(Block):
    """How the report looks."""

    dpi: int = Field(150, ge=50, le=600, description="Resolution of PNG figures in dots per inch.")
    figure_width_inches: float = Field(6.5, gt=2, le=20, description="Width of a figure in inches.")
