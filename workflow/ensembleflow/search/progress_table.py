"""The running trials of a search as a table in the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.progress import RunningTrial, SearchProgress, readable_metric
from ensembleflow.search.remaining import readable_duration

__all__ = ["print_running"]


def print_running(progress: SearchProgress, console: Console) -> None:
    """Print the running and the interrupted trials: finished epochs, last metric, an epoch's mean time.

    Where nobody trains although trials are left, say so.
    """
    if progress.running:
        console.print(_table("running", progress.running, progress))
    elif progress.n_finished < progress.n_trials:
        console.print(Text("no trial is being trained now"), soft_wrap=True)
    if progress.interrupted:
        console.print(_table("interrupted, goes on with the next run", progress.interrupted, progress))


def _table(title: str, trials: list[RunningTrial], progress: SearchProgress) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(title)
    for name in ("epochs", progress.metric, "an epoch"):
        table.add_column(name, justify="right", no_wrap=True)
    for trial in trials:
        table.add_row(
            model_id(trial.slot),
            f"{trial.epochs}/{progress.max_epochs}",
            "" if trial.metric is None else readable_metric(trial.metric, progress.metric),
            "" if trial.epoch_seconds is None else _seconds(trial.epoch_seconds),
        )
    return table


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else readable_duration(seconds)
