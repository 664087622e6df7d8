"""The paper's tables and figures, drawn from the studies of one run, with the paper's own numbers beside ours."""

from __future__ import annotations

import importlib

from ensembleflow.planning.paper_plan import PaperRun

__all__ = ["make_item"]


def make_item(item: str, run: PaperRun) -> None:
    """Make one item: `make_{item}` of the module of that name.

    Args:
        item: one of `ensembleflow.planning.paper_plan.ITEMS`.
        run: what it is drawn from.

    Raises:
        ArtefactError: an artefact of a study is damaged; one that is missing is told on the item's page.
        StorageError: an output cannot be written.
    """
    getattr(importlib.import_module(f"{__name__}.{item}"), f"make_{item}")(run)
