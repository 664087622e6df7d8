"""Section 3.3.3: whether SMOBF is Pareto dominant or equivalent to forward greedy, for each budget and seed."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ensembleflow.io import write_csv
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.paper.page import what_differs, write_page
from ensembleflow.report.paper.sources import Study, read_sources

__all__ = ["make_smobf"]

_CAPTION = """For each seed and budget, SMOBF's ensemble beside forward greedy's best by validation {loss} within the
same budget. `verdict`: SMOBF *dominates* where it is better in cost or validation {loss} and worse in neither, is
*equal*, *is dominated*, or the two *trade* cost for loss. In the paper (section 3.3.3): three runs,
in each of which SMOBF is Pareto dominant or equivalent. {differs}"""

_COLUMNS = ["study", "seed", "budget", "verdict"]
_COLUMNS += [
    f"{method}_{column}"
    for method in ("smobf", "forward")
    for column in ("n_members", "cost_seconds", "valid_loss", "test_error")
]
_EQUAL_WITHIN = 1e-9


def make_smobf(run: PaperRun) -> None:
    """Write `smobf.csv` (one row per study and budget) and its page.

    Raises:
        ArtefactError: an artefact of a study is damaged.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "smobf")
    rows = [row for study in sources.studies for row in _rows(study, f"valid_{run.selection.loss}")]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    write_csv(run.output("smobf", "csv"), table)
    caption = _CAPTION.format(loss=run.selection.loss.replace("_", "-"), differs=what_differs(run, sources))
    write_page(run, sources, table, title="Section 3.3.3: SMOBF against forward greedy", caption=caption)


def _rows(study: Study, loss: str) -> list[dict[str, Any]]:
    ensembles = study.ensembles
    rows = []
    for budget in ensembles.budget.dropna().unique():
        own = ensembles[ensembles.budget == budget]
        smobf, forward = study.chosen(str(budget)), own[own.method == "forward_greedy"]
        if smobf is None or forward.empty or forward[loss].isna().all():
            continue
        pair = {"smobf": smobf, "forward": forward.loc[forward[loss].idxmin()]}
        row: dict[str, Any] = {"study": study.name, "seed": study.seed, "budget": budget}
        for method, values in pair.items():
            row |= {f"{method}_{name}": values[name] for name in ("n_members", "cost_seconds", "test_error")}
            row[f"{method}_valid_loss"] = values[loss]
        rows.append(row | {"verdict": _verdict(row)})
    return rows


def _verdict(row: dict[str, Any]) -> str:
    gains = [row[f"forward_{name}"] - row[f"smobf_{name}"] for name in ("cost_seconds", "valid_loss")]
    better, worse = (any(sign * gain > _EQUAL_WITHIN for gain in gains) for sign in (1, -1))
    if better and worse:
        return "trade"
    return "dominates" if better else "is dominated" if worse else "equal"
