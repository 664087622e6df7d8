"""The search: what was tried, how it learned, what mattered, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from ensembleflow.io import snakemake_command
from ensembleflow.report.drawing import measure
from ensembleflow.report.page.blocks import Block, Drawing, Fact, Facts, Section, Table, Text, guarded, rows_of
from ensembleflow.report.page.importance import N_FOLDS, N_SHUFFLES, permutation_importances
from ensembleflow.report.page.look import (
    ACCENT,
    BAND,
    FAINT,
    INK,
    QUIET,
    RED,
    count_axis,
    figure,
    percent,
    seconds,
    value_axis,
)
from ensembleflow.report.page.parallel import parallel_coordinates
from ensembleflow.report.page.study import Study
from ensembleflow.search.accounting import read_runs
from ensembleflow.search.tables import tables_so_far

__all__ = ["search"]

_RUNNING = "RUNNING"
_FAILED, _STOPPED, _ENDED, _NOT_ENDED = "failed", "stopped early", "trained to the end", "not ended"
_OUTCOMES = {"COMPLETE": _ENDED, "PRUNED": _STOPPED, "FAIL": _FAILED, _RUNNING: _NOT_ENDED}
_LOOKS = {_ENDED: (ACCENT, ""), _STOPPED: (BAND, ""), _FAILED: (RED, "/"), _NOT_ENDED: (INK, ".")}
_LINES = {"PRUNED": (FAINT, "solid"), "COMPLETE": (ACCENT, "solid"), "FAIL": (RED, "dash"), _RUNNING: (INK, "dashdot")}


def search(study: Study) -> Section:
    """The section of the search."""
    intro = (
        "Every trial is a network with other hyperparameters. Weak ones are stopped early, yet their models enter the "
        "library as well."
    )
    if not (study.results / study.name / "search/trials.csv").exists():
        so_far = tables_so_far(study.results / study.name / "search")
        if so_far:
            study = replace(study, so_far=so_far)
            return Section("search", "Search", intro, guarded(_facts_so_far, _failures, _curves, study=study))
    builders = (_facts, _failures, _curves, _parallel, _importances, _timeline)
    return Section("search", "Search", intro, guarded(*builders, study=study))


def _facts(study: Study) -> Iterator[Block]:
    found = study.json("search/accounting.json", ["trials", "epochs", "duration_seconds", "n_devices", "occupancy"])
    trials, epochs = found["trials"], found["epochs"]
    yield Facts(
        [
            Fact(
                "trials", f"{trials['all']:,}", f"{trials['complete']:,} to the end, {trials['pruned']:,} stopped early"
            ),
            Fact(
                "epochs trained", f"{epochs['trained']:,}", f"{percent(epochs['share'], 0)} of all that were possible"
            ),
            Fact("search took", seconds(found["duration_seconds"]), f"on {found['n_devices']} devices"),
            Fact("devices busy", percent(found["occupancy"], 0), "of the time, with trials"),
        ]
    )
    yield from _redrawn(study)


def _redrawn(study: Study) -> Iterator[Block]:
    """What `search.limits` kept from being trained."""
    trials = study.csv("search/trials.csv")
    n_redrawn = int(trials.n_redrawn.sum()) if "n_redrawn" in trials else 0
    if n_redrawn:
        mean = trials.redrawn_multiply_adds.sum() / n_redrawn
        yield Text(
            f"{n_redrawn:,} of {n_redrawn + len(trials):,} proposals were beyond search.limits and were drawn again "
            f"before anything was trained; their networks would have taken {mean:,.2g} multiply-adds per image on "
            "average.",
            "Networks that were too large:",
        )


def _facts_so_far(study: Study) -> Iterator[Block]:
    """What a search that has not ended has done until now."""
    states = study.csv("search/trials.csv").state.value_counts()
    n_epochs = len(study.csv("search/epochs.csv"))
    yield Text(
        "Trials are still being trained, or wait to go on. Make this page again later, or finish the search: "
        f"{snakemake_command('search', near=study.results)}",
        "The search has not ended.",
    )
    ended = {state: int(states.get(state, 0)) for state in _OUTCOMES if state != _RUNNING}
    yield Facts(
        [
            Fact(
                "trials ended",
                f"{sum(ended.values()):,}",
                f"{ended['COMPLETE']:,} to the end, {ended['PRUNED']:,} stopped early",
            ),
            Fact("trials begun", f"{int(states.get(_RUNNING, 0)):,}", "and not ended"),
            Fact("epochs trained", f"{n_epochs:,}", "until now"),
        ]
    )


def _failures(study: Study) -> Iterator[Block]:
    trials = study.csv("search/trials.csv", ["slot", "state", "reason"])
    failed = trials[trials.state == "FAIL"]
    if len(failed):
        slots = "; ".join(f"slot {row.slot}: {row.reason}" for row in rows_of(failed))
        yield Text(
            f"{slots}. They stay failed; a raised search.n_trials adds others. Their logs are in "
            f"logs/{study.name}/train_trials/.",
            f"{len(failed)} of {len(trials)} trials failed.",
        )


def _curves(study: Study) -> Iterator[Block]:
    """The validation metric by epoch, a plot a bracket."""
    column, scale = f"valid_{study.metric}", measure(study.metric)
    trials = study.csv("search/trials.csv", ["slot", "state", "bracket", "epochs"])
    epochs = study.csv("search/epochs.csv", ["slot", "model", "epoch", "rung", column])
    table = epochs[["slot", "model", "epoch", "rung", column]].merge(
        trials[["slot", "state", "bracket"]], on="slot", validate="many_to_one"
    )
    table["value"] = table[column] * scale.factor
    table = table.sort_values(["bracket", "slot", "epoch"], kind="stable", ignore_index=True)
    y_axis = value_axis(table.value)
    x_axis = count_axis(int(table.epoch.max()))
    plots = []
    for bracket in sorted(table.bracket.dropna().unique()) or [None]:
        within = table if bracket is None else table[table.bracket == bracket]
        plot = figure("epoch", f"validation {scale.label}", 340, xaxis=x_axis, yaxis=y_axis)
        for rung in sorted(within.epoch[within.rung.notna()].unique()):
            plot.add_vline(rung, line={"color": FAINT, "width": 1, "dash": "dot"})
        for state, look in _LINES.items():
            curves = within[within.state == state]
            if curves.empty:
                continue
            ended = [pd.concat([curve, curve.tail(1).assign(value=np.nan)]) for _, curve in curves.groupby("slot")]
            line = pd.concat(ended)
            plot.add_scatter(
                x=line.epoch,
                y=line.value,
                text=line.model,
                mode="lines+markers",
                line={"color": look[0], "dash": look[1], "width": 1.4},
                marker={"size": 4},
                name=_OUTCOMES[state],
                hovertemplate="%{text}: %{y:.4g} after epoch %{x}<extra></extra>",
                showlegend=False,
            )
        n_trials = int((trials.bracket == bracket).sum()) if bracket is not None else len(trials)
        subtitle = "" if bracket is None else f"Bracket {int(bracket)}: {n_trials} trial{'' if n_trials == 1 else 's'}"
        plots.append((subtitle, plot))
    last = table.groupby("slot").tail(1)
    stops = last[last.state == "PRUNED"].epoch.value_counts().sort_index()
    counted = ", ".join(f"{count} after epoch {epoch}" for epoch, count in stops.items())
    running = ", black and dash-dotted not ended" if _RUNNING in set(table.state) else ""
    description = (
        f"Each line is a trial: blue to the end, grey stopped early, red and dashed failed{running}. Dotted lines "
        f"are the rungs at which the weaker trials of a bracket are stopped ({counted or 'none was'}). The best "
        f"validation {scale.label} reached is {table.value.min():.3g}."
    )
    rows = [
        [
            row.model,
            "" if pd.isna(row.bracket) else f"{row.bracket:.0f}",
            f"{row.epoch}",
            f"{row.value:.4g}",
            _OUTCOMES.get(row.state, row.state),
        ]
        for row in rows_of(last.sort_values(["value", "slot"]))
    ]
    shown = Table(
        "Last epoch of each trial, the best first",
        ["trial", "bracket", "epochs", f"validation {scale.label}", "outcome"],
        rows,
        ["search/epochs.csv", "search/trials.csv"],
        folded=True,
    )
    yield Drawing("learning-curves", "Learning curves by bracket and rung", description, plots, shown)


def _parallel(study: Study) -> Iterator[Block]:
    yield parallel_coordinates(study)


def _importances(study: Study) -> Iterator[Block]:
    """How much each hyperparameter tells of the outcome."""
    column = f"valid_{study.metric}"
    trials = study.csv("search/trials.csv", ["epochs", column])
    found = permutation_importances(trials, column)
    if found is None:
        yield Text(
            "There are too few trials to tell which hyperparameters mattered.", "Importances of hyperparameters:"
        )
        return
    table = found.table.assign(label=found.table.name.str.replace("_", " "))
    epochs, others = table[table.name == "epochs"], table[table.name != "epochs"]
    plot = figure("rank correlation lost", "", 90 + 24 * len(others))
    plot.add_bar(
        x=others.importance,
        y=others.label,
        orientation="h",
        marker={"color": ACCENT},
        error_x={"type": "data", "array": others.deviation, "color": INK, "thickness": 1, "width": 3},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        showlegend=False,
    )
    plot.update_xaxes(zeroline=True, zerolinecolor=FAINT)
    plot.update_yaxes(autorange="reversed")
    clear = others.label[others.importance > others.deviation]
    description = (
        f"How much worse a random forest ranks trials that it has not seen once one hyperparameter's values are "
        f"shuffled (rank correlation before: {found.correlation:.2f}; mean and standard deviation over {N_FOLDS} folds "
        f"and {N_SHUFFLES} shuffles). "
        f"{'Clear of chance: ' + ', '.join(clear) if len(clear) else 'None is clear of chance'}, with {len(trials)} "
        "trials."
    )
    for row in rows_of(epochs):
        description += (
            f" The epochs trained, which the forest knows too so that early stopping is not blamed on hyperparameters, "
            f"count for {row.importance:.2f}."
        )
    rows = [[row.label, f"{row.importance:.4f}", f"{row.deviation:.4f}"] for row in rows_of(table)]
    columns = ["hyperparameter", "importance", "deviation"]
    shown = Table("Importances", columns, rows, ["search/trials.csv"], folded=True)
    yield Drawing("importances", "What mattered", description, [("", plot)], shown)


def _timeline(study: Study) -> Iterator[Block]:
    """Which device worked on which trial when."""
    trials = study.csv("search/trials.csv", ["slot", "model", "state"]).set_index("slot")
    runs = read_runs(study.path("search/runs.csv"), study.csv("search/epochs.csv", ["slot", "epoch", "ended_at"]))
    origin = min(run.process_started_at for run in runs)
    lanes = sorted({run.lane for run in runs}, reverse=True)
    last = max(run.ended_at for run in runs) - origin
    unit, length = ("min", 60.0) if last < 7200 else ("h", 3600.0)
    states = [str(trials.state.get(run.slot, "")) for run in runs]
    plot = figure(f"{unit} since the first job started", "", 150 + 42 * len(lanes))
    plot.update_layout(barmode="overlay", bargap=0.25)
    starts = {run.process: run for run in reversed(runs)}.values()
    plot.add_bar(
        orientation="h",
        y=[run.lane for run in starts],
        base=[(run.process_started_at - origin) / length for run in starts],
        x=[(max(run.ready_at - run.process_started_at, 0.0)) / length for run in starts],
        marker={"color": FAINT, "pattern": {"shape": "."}},
        name="a job starting",
        hovertemplate="%{y}: a job starting<extra></extra>",
    )
    for state, outcome in _OUTCOMES.items():
        own = [run for run, its_state in zip(runs, states, strict=True) if its_state == state]
        if not own:
            continue
        colour, pattern = _LOOKS[outcome]
        plot.add_bar(
            orientation="h",
            y=[run.lane for run in own],
            base=[(run.started_at - origin) / length for run in own],
            x=[(run.ended_at - run.started_at) / length for run in own],
            marker={"color": colour, "line": {"color": QUIET, "width": 0.8}, "pattern": {"shape": pattern}},
            name=outcome,
            text=[trials.model.get(run.slot, f"slot {run.slot}") for run in own],
            textposition="none",
            customdata=[[run.epochs, seconds(run.ended_at - run.started_at)] for run in own],
            hovertemplate="%{text}: %{customdata[0]} epochs in %{customdata[1]}<extra></extra>",
        )
    plot.update_xaxes(range=[0, last / length * 1.01])
    plot.update_yaxes(categoryorder="array", categoryarray=lanes)
    rows = [
        [
            lane,
            trials.model.get(run.slot, f"slot {run.slot}"),
            f"{run.started_at - origin:,.1f}",
            f"{run.ended_at - run.started_at:,.1f}",
            f"{run.epochs}",
            _OUTCOMES.get(state, state),
        ]
        for lane in reversed(lanes)
        for run, state in zip(runs, states, strict=True)
        if run.lane == lane
    ]
    columns = ["device", "trial", "start (s)", "duration (s)", "epochs", "outcome"]
    table = Table("Runs", columns, rows, ["search/runs.csv", "search/accounting.json"], folded=True)
    description = (
        f"{len(runs)} runs of {len(trials)} trials on {len(lanes)} device{'' if len(lanes) == 1 else 's'} in "
        f"{seconds(last)}; gaps are time in which a device waited."
    )
    yield Drawing("timeline", "Jobs by device", description, [("", plot)], table)
