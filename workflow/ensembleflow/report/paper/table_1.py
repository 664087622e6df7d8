"""Table 1: random search, Hyperband and the genetic algorithm by number of workers."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

import pandas as pd

from ensembleflow.io import write_csv
from ensembleflow.planning.paper_plan import TABLE_1_ALGORITHMS, PaperRun
from ensembleflow.planning.search_plan import generation_size
from ensembleflow.report.paper.page import what_differs, write_page
from ensembleflow.report.paper.published import published
from ensembleflow.report.paper.sources import Study, read_sources

__all__ = ["make_table_1"]

_CAPTION = """Three ways to search, by number of workers. Accuracy is that of the best single model (by validation) on
the test images in percent, mean and standard deviation over the seeds; it does not depend on the workers. Minutes are
the search's duration, speed-up the trials' summed time over it (the paper: against one GPU), epochs those trained, and
occupancy the share of the duration in which a worker has a trial, in percent. Rows `measured` are what happened with
the workers of this machine, where a study after the other had them, but for its first and last jobs, which overlap with
its neighbours'. Rows `simulated` are the same trials replayed in virtual time on other numbers of workers, with the
starts and pauses that were recorded, and with fewer trials per job where some workers would have none. All are means
over the seeds. Rows `paper` are the paper's."""

_COLUMNS = ["algorithm", "workers", "source", "trials", "max_epochs", "seeds", "accuracy", "accuracy_std"]
_COLUMNS += ["minutes", "speed_up", "epochs", "occupancy"]


def make_table_1(run: PaperRun) -> None:
    """Write `table_1.csv` and its page.

    Raises:
        ArtefactError: an artefact of a study is damaged.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "table_1")
    rows: list[dict[str, Any]] = []
    for algorithm in TABLE_1_ALGORITHMS:
        if studies := sources.of(algorithm):
            rows += _own_rows(run, algorithm, studies)
    rows += [{**row, "source": "paper"} for row in published("table_1")]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    caption = f"{_CAPTION} {what_differs(run, sources)}"
    write_csv(run.output("table_1", "csv"), table)
    write_page(run, sources, table, title="Table 1: search algorithms by number of workers", caption=caption)


def _own_rows(run: PaperRun, algorithm: str, studies: list[Study]) -> list[dict[str, Any]]:
    accuracies = [100.0 * (1.0 - float(study.best_single().test_error)) for study in studies]
    common = {
        "algorithm": algorithm,
        "trials": run.search.n_trials,
        "max_epochs": run.search.max_epochs,
        "seeds": len(studies),
        "accuracy": fmean(accuracies),
        "accuracy_std": stdev(accuracies) if len(studies) > 1 else None,
    }
    measured: dict[int, list[dict[str, float]]] = {}
    for study in studies:
        measured.setdefault(int(study.accounting["n_devices"]), []).append(_measured(study))
    rows = [
        {**common, "workers": workers, "source": "measured", "seeds": len(each), **_means(each)}
        for workers, each in sorted(measured.items())
    ]
    for workers in sorted(run.paper.workers):
        simulated = [_simulated(run, algorithm, study, workers) for study in studies]
        rows.append({**common, "workers": workers, "source": "simulated", **_means(simulated)})
    return rows


def _measured(study: Study) -> dict[str, float]:
    accounts = study.accounting
    return {
        "minutes": accounts["duration_seconds"] / 60,
        "speed_up": accounts["speed_up"],
        "epochs": accounts["epochs"]["trained"],
        "occupancy": 100.0 * accounts["occupancy"],
    }


def _simulated(run: PaperRun, algorithm: str, study: Study, workers: int) -> dict[str, float]:
    # simpy, which only this item needs, is in no other rule's environment.
    from ensembleflow.search.simulation import TrialSource, optuna_study, read_recording, recorded_limits, simulate

    recording = read_recording(study.folder / "search", run.search.metric)
    search = run.search.model_copy(update={"algorithm": algorithm})
    share = max(1, (generation_size(search) or search.n_trials) // workers)
    simulation = simulate(
        search.model_copy(update={"trials_per_job": min(search.trials_per_job, share)}),
        TrialSource(recording, run.search.max_epochs),
        workers,
        recorded_limits(recording),
        study_name=optuna_study(study.folder, study.name),
        recorded_algorithm=algorithm,
    )
    return {
        "minutes": simulation.duration_seconds / 60,
        "speed_up": simulation.speed_up,
        "epochs": sum(simulation.epochs),
        "occupancy": 100.0 * simulation.occupancy,
    }


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(row[name] for row in rows) for name in rows[0]}
