"""Table 4: other ways to one's classifier, under the same data and a stated time."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from ensembleflow.io import read_csv, read_json, write_csv
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.paper.page import what_differs, write_page
from ensembleflow.report.paper.published import published
from ensembleflow.report.paper.sources import Sources, Study, read_sources

__all__ = ["make_table_4"]

_CAPTION = """Test accuracy in percent on the same data, with the time it took. *Single network* is the best by
validation of a whole search, that is AutoML without ensembling: of the same trials and time as the ensembles' for
{algorithm}, and of searches of as many trials by the other algorithms; mean and standard deviation over the seeds.
*Ours* is SMOBF's ensemble within the largest budget at snapshots of one study's time (figure 3's table). Auto-Keras
runs in an environment of its own (`snakemake run_autokeras`){autokeras}. Rows `paper` are the paper's, on CIFAR100,
and those that it takes from others. {differs}"""

_COLUMNS = ["method", "source", "data", "devices", "minutes", "device_minutes", "networks", "seeds"]
_COLUMNS += ["accuracy", "accuracy_std"]


def make_table_4(run: PaperRun) -> None:
    """Write `table_4.csv` (one row per method and time) and its page.

    Raises:
        ArtefactError: an artefact is damaged.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "table_4")
    rows: list[dict[str, Any]] = []
    for algorithm in run.paper.algorithms:
        if studies := sources.of(algorithm):
            rows.append(_single(algorithm, studies))
    rows += _over_time(run, sources)
    autokeras, told = _autokeras(run)
    rows = [{"source": "ours", "data": run.dataset, **row} for row in [*rows, *autokeras]]
    rows += [
        {
            "method": row["method"],
            "source": "paper",
            "data": "cifar100",
            "devices": row["gpus"],
            "minutes": 60 * row["hours"],
            "device_minutes": 60 * row["gpu_hours"],
            "networks": row["networks"],
            "accuracy": row["accuracy"],
        }
        for row in published("table_4")
    ]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    write_csv(run.output("table_4", "csv"), table)
    caption = _CAPTION.format(algorithm=run.paper.algorithm, autokeras=told, differs=what_differs(run, sources))
    write_page(run, sources, table.round(2), title="Table 4: against other AutoML", caption=caption)


def _single(algorithm: str, studies: list[Study]) -> dict[str, Any]:
    accuracies = [100.0 * (1.0 - float(study.best_single().test_error)) for study in studies]
    minutes = [study.accounting["duration_seconds"] / 60 for study in studies]
    devices = [study.accounting["n_devices"] for study in studies]
    return {
        "method": f"single network by {algorithm}",
        "devices": fmean(devices),
        "minutes": fmean(minutes),
        "device_minutes": fmean(each * n for each, n in zip(minutes, devices, strict=True)),
        "networks": 1,
        "seeds": len(studies),
        "accuracy": fmean(accuracies),
        "accuracy_std": stdev(accuracies) if len(studies) > 1 else None,
    }


def _over_time(run: PaperRun, sources: Sources) -> list[dict[str, Any]]:
    columns = ["study", "budget", "minutes", "n_members", "test_error"]
    replay = read_csv(run.output("figure_3", "csv"), columns, dtype={"budget": str})
    budget = str(run.selection.budgets[-1])
    devices = {study.name: study.accounting["n_devices"] for study in sources.studies}
    first = replay.study == replay.study.iloc[0] if len(replay) else replay.budget.notna()
    own = replay[first & (replay.budget == budget) & replay.test_error.notna()]
    return [
        {
            "method": f"ours with B={budget}",
            "devices": devices.get(row["study"]),
            "minutes": row["minutes"],
            "device_minutes": row["minutes"] * devices[row["study"]] if row["study"] in devices else None,
            "networks": row["n_members"],
            "seeds": 1,
            "accuracy": 100.0 * (1.0 - row["test_error"]),
        }
        for row in own.to_dict("records")
    ]


def _autokeras(run: PaperRun) -> tuple[list[dict[str, Any]], str]:
    """The row of Auto-Keras, if it has run, and what the caption says of it."""
    path = Path(run.output("autokeras", "json"))
    if not path.exists():
        return [], ", which has not been run here: no row"
    found = read_json(path, ["version", "max_trials", "epochs", "seconds", "test_error", "devices"])
    row = {
        "method": f"Auto-Keras {found['version']}",
        "devices": found["devices"],
        "minutes": found["seconds"] / 60,
        "device_minutes": found["seconds"] / 60 * found["devices"],
        "networks": 1,
        "seeds": 1,
        "accuracy": 100.0 * (1.0 - found["test_error"]),
    }
    return [row], f": {found['max_trials']} trials of at most {found['epochs']} epochs"
