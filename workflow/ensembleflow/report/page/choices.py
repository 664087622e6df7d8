"""What each budget buys, gathered for the panel of the decision."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from ensembleflow.config import MEASURED, SIMULATED, is_simulated
from ensembleflow.errors import EnsembleflowError
from ensembleflow.models.engines import DEFAULT_ENGINE
from ensembleflow.report.answers import (
    CONFIDENCE,
    N_BINS,
    Answers,
    answers_on_test,
    baseline_answers,
    difference_interval,
    paired_difference,
)
from ensembleflow.report.budgets import BASELINE_KEYS, fitted_to
from ensembleflow.report.measurement import cost_notes, disagreeing_speeds, speed_notes
from ensembleflow.report.page.blocks import Choice, Fact, Missing, Table
from ensembleflow.report.page.look import percent, seconds
from ensembleflow.report.page.study import Study

__all__ = ["Bought", "Floor", "baseline_floor", "bought", "choice", "single_answers"]

SINGLE = "best single"
SIGNIFICANT = 0.05
_CACHE = "library/predictions.h5"
_METRIC_NAMES = {
    "error": "error",
    "macro_f1_error": "1 − macro F1",
    "cross_entropy": "cross-entropy (nats)",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}
_SHARES = ("error", "macro_f1_error", "calibration_error")


@dataclass(frozen=True)
class Bought:
    """One budget's ensemble with all that was measured of it; what is missing is told in `missing`.

    `notes` tell where the speed disagrees with another budget's.
    """

    budget: str
    selection: dict[str, Any]
    answers: Answers | None
    allocation: dict[str, Any] | None
    compared: Mapping[str, Any]
    has_bundle: bool
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def members(self) -> list[str]:
        """The members' ids, in the order chosen."""
        return list(self.selection["members"])


@dataclass(frozen=True)
class Floor:
    """The baseline: its name, its answers (None where it was left out), and what is to be known of it."""

    name: str
    answers: Answers | None
    note: str


def bought(study: Study) -> tuple[list[Bought], list[Missing]]:
    """The ensembles of all budgets that have one, and what the others lack.

    Raises:
        ArtefactError: no budget is known.
    """
    missing: list[Missing] = []
    selections: dict[str, dict[str, Any]] = {}
    for budget in study.budgets:
        keys = ["budget", "budget_seconds", "loss", "members", "cost_seconds", "valid", "test"]
        found = _or_missing(partial(study.json, f"selection/budget-{budget}.json", keys), missing)
        if found is not None:
            selections[budget] = found
    ensembles = {budget: selection["members"] for budget, selection in selections.items()}
    answers = _or_missing(lambda: answers_on_test(study.path(_CACHE), ensembles), missing) if selections else None
    comparison = _or_missing(partial(study.csv, "selection/comparison.csv", ["budget", "method"]), missing)
    everything = []
    n_devices = _or_missing(lambda: study.n_devices, missing)
    for budget, selection in selections.items():
        lacks: list[Missing] = []
        allocated = f"allocation/budget-{budget}/devices-{n_devices}.json"
        keys = ["members", "devices", "images_per_second"]
        allocation = _or_missing(partial(study.json, allocated, keys), lacks) if n_devices else None
        bundle = f"bundles/budget-{budget}"
        packed = None
        if allocation is None or not is_simulated(allocation):
            packed = _or_missing(partial(study.json, f"{bundle}/bundle.json", ["members"]), lacks)
        compared: Mapping[str, Any] = {}
        if comparison is not None:
            rows = comparison[(comparison.budget == budget) & (comparison.method == "smobf")]
            rows = rows[rows.combiner == "average"]
            compared = rows.iloc[0].to_dict() if len(rows) else {}
        own = None if answers is None else answers.get(budget)
        everything.append(Bought(budget, selection, own, allocation, compared, packed is not None, lacks))
    placed = [each for each in everything if each.allocation is not None]
    ids = [" ".join(each.members) for each in placed]
    speeds = [(each.allocation or {})["images_per_second"] for each in placed]
    for each, disagreeing in zip(placed, disagreeing_speeds(ids, speeds), strict=True):
        each.notes.extend(disagreeing)
    return everything, missing


def single_answers(study: Study) -> tuple[str, Answers] | None:
    """The best single model of the library and its answers; None where that is not known."""
    try:
        ensembles = study.csv("selection/ensembles.csv", ["method", "budget", "members"])
        single = ensembles.members[(ensembles.method == "best_single") & ensembles.budget.isna()]
        answers = answers_on_test(study.path(_CACHE), {SINGLE: [single.iloc[0]]}) if len(single) else None
    except EnsembleflowError:
        return None  # told where the table and the cache are what is shown
    return (str(single.iloc[0]), answers[SINGLE]) if answers else None


def baseline_floor(study: Study) -> Floor | None:
    """The baseline; None where it is turned off or not there yet."""
    try:
        fitted = study.json("library/baseline.json", BASELINE_KEYS)
        answers = baseline_answers(study.path("library/baseline.csv"))
    except EnsembleflowError:
        return None
    if fitted["turned_off"]:
        return None
    if fitted["classifier"] is None:
        return Floor("", None, f"There is no baseline: {fitted['reason']}.")
    part = fitted_to(fitted)
    return Floor(fitted["classifier"], answers, f"The baseline {part}." if part else "")


def choice(
    study: Study, found: Bought, single: tuple[str, Answers] | None, floor: Floor | None, *, recommended: bool
) -> Choice:
    """One budget's panel."""
    n_members = len(found.members)
    limits = found.selection.get("limits") or {"cost_seconds": found.selection["budget_seconds"]}
    limit = " and ".join(_limit(study, column, most) for column, most in limits.items() if most is not None)
    folder = shlex.quote(str(study.results / study.name / "bundles" / f"budget-{found.budget}"))
    commands = [
        ("Serve it", f"ensembleflow serve {folder}"),
        ("Predict with it", f"ensembleflow predict {folder} IMAGE.png"),
    ]
    return Choice(
        budget=found.budget,
        title=f"Budget {found.budget}: {n_members} member{'' if n_members == 1 else 's'}",
        summary=f"At most {limit}." if limit else "",
        facts=[_error(found), *_own_metric(study, found), _calibration(found), _cost(found), _speed(found)],
        tables=[_members(study, found), _metrics(found)],
        notes=[note for note in _notes(study, found, single, floor) if note],
        commands=commands if found.has_bundle else [],
        missing=found.missing,
        recommended=recommended,
    )


def _or_missing(read: Callable[[], Any], missing: list[Missing]) -> Any:
    try:
        return read()
    except EnsembleflowError as error:
        missing.append(Missing.of(error))
        return None


def _limit(study: Study, column: str, most: float) -> str:
    if column == "cost_seconds":
        return f"{seconds(most)} for {study.n_images:,} images"
    return f"{most:,.4g} {column.replace('_', ' ')}"


def _error(found: Bought) -> Fact:
    error = found.selection["test"].get("error")
    if error is None:
        value = _four_digits(found.selection["test"]["cross_entropy"])
        return Fact("test cross-entropy", value, "nats; the error is not known without the predictions of every class")
    if found.answers is None:
        return Fact("test error", percent(error), "no interval without the cached predictions of every class")
    low, high = found.answers.interval
    n_images = len(found.answers.right)
    note = f"{percent(CONFIDENCE, 0)} interval {low * 100:.1f} to {percent(high, 1)} (Wilson, {n_images:,} test images)"
    return Fact("test error", percent(error), note)


def _own_metric(study: Study, found: Bought) -> list[Fact]:
    """The metric that the study ranks by, where that is not the error, which stands there anyway."""
    metric = study.metric
    value = found.selection["test"].get(metric)
    if metric == "error" or value is None or found.selection["test"].get("error") is None:
        return []
    written = percent(value) if metric in _SHARES else _four_digits(value)
    return [Fact(f"test {_METRIC_NAMES[metric]}", written, "search.metric, by which the networks were ranked")]


def _calibration(found: Bought) -> Fact:
    value = found.compared.get("test_calibration_error")
    if value is None and found.answers is not None:
        bins = found.answers.bins()
        value = sum(each.n_images * abs(each.confidence - each.accuracy) for each in bins) / len(found.answers.right)
    return Fact("calibration error", percent(value, 1), f"expected, in {N_BINS} bins of confidence, on the test images")


def _cost(found: Bought) -> Fact:
    cost, most = found.selection["cost_seconds"], found.selection["budget_seconds"]
    return Fact("cost", seconds(cost), f"{percent(cost / most, 0)} of the budget" if most else "the members' sum")


def _speed(found: Bought) -> Fact:
    if found.allocation is None:
        return Fact("measured speed", "–", "not allocated yet")
    allocation = found.allocation
    how = SIMULATED if is_simulated(allocation) else MEASURED
    used = dict.fromkeys(str(member["device"]) for member in allocation["members"])
    notes = [f"{how} on {', '.join(used)}"]
    if "images_per_second_q25" in allocation:
        low, high = allocation["images_per_second_q25"], allocation["images_per_second_q75"]
        notes.append(f"quartiles {low:,.0f} to {high:,.0f}")
    if (latency := allocation.get("latency_p50_ms")) is not None:
        n_images = allocation["bench"]["request_images"]
        notes.append(
            f"latency p50 {latency:,.3g} ms, p99 {allocation['latency_p99_ms']:,.3g} ms a request of {n_images} "
            f"image{'' if n_images == 1 else 's'}"
        )
    return Fact(f"{how} speed", f"{allocation['images_per_second']:,.0f} images/s", "; ".join(notes))


def _members(study: Study, found: Bought) -> Table:
    placed: dict[str, list[dict[str, Any]]] = {}
    for member in (found.allocation or {"members": []})["members"]:
        placed.setdefault(str(member["model"]), []).append(member)
    models = _indexed(study, "library/models.csv", ["model", "valid_error", "n_parameters"])
    costs = _indexed(study, "library/costs.csv", ["model", "cost_seconds"])
    rows = []
    for model in found.members:
        own = models.get(model, {})
        places = placed.get(model, [])
        rows.append(
            [
                model,
                percent(own.get("valid_error")),
                f"{own['n_parameters']:,.0f}" if own else "–",
                seconds(costs.get(model, {}).get("cost_seconds")),
                ", ".join(str(place["device"]) for place in places) or "–",
                ", ".join(str(place["batch_size"]) for place in places) or "–",
                ", ".join(dict.fromkeys(place.get("engine", DEFAULT_ENGINE) for place in places)) or "–",
            ]
        )
    columns = ["member", "validation error", "parameters", "cost", "device", "batch size", "engine"]
    sources = [f"selection/budget-{found.budget}.json", "library/models.csv", "library/costs.csv"]
    return Table("Members, in the order chosen", columns, rows, sources)


def _metrics(found: Bought) -> Table:
    rows = []
    for metric, name in _METRIC_NAMES.items():
        values = [_metric(found, split, metric) for split in ("valid", "test")]
        if any(value is not None for value in values):
            written = percent if metric in _SHARES else _four_digits
            rows.append([name, *map(written, values)])
    columns = ["metric", "validation", "test"]
    sources = [f"selection/budget-{found.budget}.json", "selection/comparison.csv"]
    return Table("All metrics", columns, rows, sources, folded=True)


def _metric(found: Bought, split: str, metric: str) -> float | None:
    value = found.selection[split].get(metric, found.compared.get(f"{split}_{metric}"))
    return None if value is None or pd.isna(value) else float(value)


def _four_digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _notes(study: Study, found: Bought, single: tuple[str, Answers] | None, floor: Floor | None) -> list[str]:
    measured = [f"{note[0].upper()}{note[1:]}." for note in _measured_notes(study, found)]
    return [
        _against_single(found, single),
        *_against_baseline(found, floor),
        _certificate(found),
        _unpacked(found),
        *measured,
    ]


def _against_single(found: Bought, single: tuple[str, Answers] | None) -> str:
    if single is None or found.answers is None:
        return ""
    name, answers = single
    if found.members == [name]:
        return f"This is the best single network, {name}: SMOBF found no lower score within this budget."
    return f"Against the best single network, {name}: {_compared(found.answers, answers)}"


def _against_baseline(found: Bought, floor: Floor | None) -> list[str]:
    if floor is None or floor.answers is None or found.answers is None:
        return [] if floor is None else [floor.note]
    if not found.answers.are_of_the_images_of(floor.answers):
        return []  # fitted to an earlier dataset
    return [f"Against the baseline, {floor.name} on the pixels: {_compared(found.answers, floor.answers)}", floor.note]


def _compared(ours: Answers, theirs: Answers) -> str:
    """Two ensembles' answers to the same images, in words."""
    difference, low, high = (100 * value for value in difference_interval(ours, theirs))
    gained, lost, p_value = paired_difference(ours, theirs)
    verdict = "the two cannot be told apart by these images" if p_value > SIGNIFICANT else "more than chance"
    return (
        f"test error {difference:+.2f} percentage points ({percent(CONFIDENCE, 0)} interval {low:+.2f} to {high:+.2f}, "
        f"Newcombe), right on {gained} test image{'' if gained == 1 else 's'} that it gets wrong, wrong on {lost} that "
        f"it gets right (McNemar's exact test, p = {p_value:.2g}: {verdict})."
    ).replace("-", "−")


def _measured_notes(study: Study, found: Bought) -> list[str]:
    """What disturbed the costs or the speed, and whether the choice hangs on less than the costs' spread."""
    notes = [] if found.allocation is None else [*speed_notes(found.allocation), *found.notes]
    try:
        costs, tried = (
            study.csv("library/costs.csv", ["model", "cost_seconds"]),
            study.csv("selection/pareto.csv", ["members", "cost_seconds"]),
        )
    except EnsembleflowError:
        return notes  # told where the tables are what is shown
    return [*cost_notes(found.selection, costs, tried), *notes]


def _certificate(found: Bought) -> str:
    gap, certified = found.compared.get("loss_gap"), found.compared.get("certified")
    if gap is None or pd.isna(gap):
        return ""
    if str(certified).lower() == "true" and gap <= 0:
        return "Proven optimal: no ensemble of these models within this budget has a lower validation loss."
    known = "the optimum" if str(certified).lower() == "true" else "the lowest loss that could be possible"
    return f"Its validation loss is {gap:.4g} above {known} within this budget."


def _unpacked(found: Bought) -> str:
    if found.allocation is None or not is_simulated(found.allocation):
        return ""
    return "Its allocation is only simulated, so there is no bundle to serve: `allocation.bench: measured` makes one."


def _indexed(study: Study, name: str, columns: list[str]) -> dict[str, dict[str, Any]]:
    try:
        table = study.csv(name, columns)
    except EnsembleflowError:
        return {}  # told in the section of the library
    rows = ({str(name): value for name, value in row.items()} for row in table[columns].to_dict("records"))
    return {str(row["model"]): row for row in rows}
