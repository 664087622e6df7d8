"""Table 2: the error of the ensembles that seven search algorithms' libraries give, by budget."""

from __future__ import annotations

from statistics import median, stdev
from typing import Any

import pandas as pd

from ensembleflow.io import write_csv
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.paper.page import what_differs, write_page
from ensembleflow.report.paper.published import published
from ensembleflow.report.paper.sources import read_sources

__all__ = ["make_table_2"]

_CAPTION = """Test error in percent of the ensemble that SMOBF chooses within each budget from the library of each
search algorithm: the median over the seeds. A budget is the most that the members' summed seconds for {n_images:,}
images on one device may be; `4x` is four times the median cost of the study's kept models. {paper} {differs}"""

_COLUMNS = ["data", "source", "budget", "algorithm", "seeds", "error", "error_std", "members"]


def make_table_2(run: PaperRun) -> None:
    """Write `table_2.csv` (one row per budget and algorithm) and its page (one column per algorithm).

    Raises:
        ArtefactError: an artefact of a study is damaged.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "table_2")
    rows: list[dict[str, Any]] = []
    for budget in run.selection.budgets:
        for algorithm in run.paper.algorithms:
            found = [each for study in sources.of(algorithm) if (each := study.chosen(str(budget))) is not None]
            if found:
                errors = [100.0 * float(each.test_error) for each in found]
                rows.append(
                    {"data": run.dataset, "source": "ours", "budget": budget, "algorithm": algorithm}
                    | {"seeds": len(found), "error": median(errors)}
                    | {"error_std": stdev(errors) if len(errors) > 1 else None}
                    | {"members": median(int(each.n_members) for each in found)}
                )
    for data, columns in published("table_2").items():
        budgets = columns["budgets"]
        rows += [
            {"data": data, "source": "paper", "budget": budget, "algorithm": algorithm, "seeds": 3, "error": error}
            for algorithm, errors in columns.items()
            if algorithm != "budgets"
            for budget, error in zip(budgets, errors, strict=True)
        ]
    table = pd.DataFrame(rows, columns=_COLUMNS).astype({"budget": str})
    caption = _CAPTION.format(
        n_images=run.library.cost.n_images,
        paper="Below are the paper's numbers (of microfossils 1 - F1), in seconds on its V100.",
        differs=what_differs(run, sources),
    )
    write_csv(run.output("table_2", "csv"), table)
    title = "Table 2: error by search algorithm and budget"
    write_page(run, sources, _by_algorithm(table), title=title, caption=caption)


def _by_algorithm(table: pd.DataFrame) -> pd.DataFrame:
    """A row a data set and budget, one column per algorithm, in the order of the table."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for each in table.itertuples(index=False):
        key = (str(each.data), str(each.source), str(each.budget))
        head = {"data": each.data, "source": each.source, "budget": each.budget}
        rows.setdefault(key, head)[str(each.algorithm)] = f"{each.error:.2f}"
    return pd.DataFrame(list(rows.values()))
