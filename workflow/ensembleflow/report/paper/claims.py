"""Which of the paper's claims hold in our runs, which do not, and which cannot be told at this scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from ensembleflow.io import read_csv, write_csv
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.paper.interval import CANNOT_TELL, FAILS, HOLDS, mean_interval, verdict_of
from ensembleflow.report.paper.page import what_differs, write_page
from ensembleflow.report.paper.sources import BEST_SINGLE, Sources, read_sources

__all__ = ["make_claims"]

_CAPTION = """What the paper claims, and what our runs say. A difference is taken within each seed, in favour of the
claim where it is above 0; a claim *holds* where the 95 % confidence interval of its mean over the seeds (Student's t)
lies above 0, *does not hold* where it lies below, and *cannot be told* at this scale where it does not decide, or where
there are fewer than two seeds. A claim of "no worse" allows {margin:g} points. Claims of "each time" are counted
instead. {differs}"""

_MARGIN_POINTS = 0.5
_PAPERS_FRACTION = 0.2
_COLUMNS = ["name", "section", "claim", "verdict", "difference", "low", "high", "unit", "n", "detail"]

Row = dict[str, Any]


def make_claims(run: PaperRun) -> None:
    """Write `claims.csv` (a row a claim) and its page.

    Raises:
        ArtefactError: an artefact is damaged, or an item's table missing.
        StorageError: an output cannot be written.
    """
    sources = read_sources(run, "claims")
    rows = [*_of_searches(run, sources), *_of_ensembles(run, sources), *_of_sections(run)]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    write_csv(run.output("claims", "csv"), table)
    shown = pd.DataFrame(
        {
            "section": table.section,
            "the paper's claim": table.claim,
            "in our runs": table.verdict,
            "by how much (95 % interval)": [_readable(row) for _, row in table.iterrows()],
        }
    )
    caption = _CAPTION.format(margin=_MARGIN_POINTS, differs=what_differs(run, sources))
    write_page(run, sources, shown, title="The paper's claims", caption=caption)


def _of_searches(run: PaperRun, sources: Sources) -> Iterator[Row]:
    minutes, occupancy = (
        {
            algorithm: {study.seed: scale * study.accounting[key] for study in sources.of(algorithm)}
            for algorithm in run.paper.algorithms
        }
        for key, scale in (("duration_seconds", 1 / 60), ("occupancy", 100.0))
    )
    hyperband, random, genetic = (minutes.get(name, {}) for name in ("hyperband", "random", "genetic"))
    yield _difference(
        ("hyperband_is_shorter", "3.2.1", "Hyperband ends earlier than random search."),
        [100.0 * (1.0 - hyperband[seed] / random[seed]) for seed in hyperband if seed in random],
        "% of random search's duration",
    )
    both, busy = [occupancy.get(name, {}) for name in ("random", "hyperband")], occupancy.get("genetic", {})
    yield _difference(
        (
            "generations_idle",
            "3.2.1",
            "Random search and Hyperband occupy the workers more than a sequence of generations does.",
        ),
        [min(each[seed] for each in both) - busy[seed] for seed in genetic if all(seed in each for each in both)],
        "points of occupancy",
    )


def _of_ensembles(run: PaperRun, sources: Sources) -> Iterator[Row]:
    smallest, largest = str(run.selection.budgets[0]), str(run.selection.budgets[-1])
    errors = {
        (study.algorithm, study.seed, budget): 100.0 * float(chosen.test_error)
        for study in sources.studies
        for budget in (smallest, largest)
        if (chosen := study.chosen(budget)) is not None
    }
    others = [algorithm for algorithm in run.paper.algorithms if algorithm != "hyperband"]
    gains = []
    for seed in run.paper.seeds:
        rivals = [errors[name, seed, largest] for name in others if (name, seed, largest) in errors]
        own = errors.get(("hyperband", seed, largest))
        # The best of fewer rivals would be another claim.
        if own is not None and others and len(rivals) == len(others):
            gains.append(min(rivals) - own)
    yield _difference(
        ("hyperband_is_best", "3.2.2", f"The best ensemble (B={largest}) is found with Hyperband."),
        gains,
        "points of error",
    )
    by_seed: dict[int, list[float]] = {}
    for algorithm, seed, budget in errors:
        if budget == largest and (algorithm, seed, smallest) in errors and smallest != largest:
            by_seed.setdefault(seed, []).append(errors[algorithm, seed, smallest] - errors[algorithm, seed, largest])
    yield _difference(
        ("budget_helps", "3.2.2", f"A larger budget gives a better ensemble (B={smallest} to B={largest})."),
        [fmean(each) for each in by_seed.values()],
        "points of error, mean of the algorithms",
    )
    own_studies = sources.of(run.paper.algorithm)
    yield _difference(
        ("ensembles_help", "3.2.2", f"An ensemble (B={largest}) beats the search's best single network."),
        [
            100.0 * float(study.best_single().test_error) - errors[study.algorithm, study.seed, largest]
            for study in own_studies
            if (study.algorithm, study.seed, largest) in errors
        ],
        "points of error",
    )


def _of_sections(run: PaperRun) -> Iterator[Row]:
    tables = {
        item: read_csv(run.output(item, "csv"), dtype={"budget": str})
        for item in ("figure_3", "pruning", "smobf", "combiners", "table_3")
    }
    replay = tables["figure_3"]
    replay = replay[(replay.budget != BEST_SINGLE) & replay.test_error.notna()]
    largest = replay[replay.budget == str(run.selection.budgets[-1])].sort_values("snapshot", kind="stable")
    ends = largest.groupby("study").test_error.agg(["first", "last", "size"])
    yield _difference(
        ("tuning_time_helps", "3.2.3", "With a large budget a longer search finds better ensembles."),
        (100.0 * (ends["first"] - ends["last"]))[ends["size"] > 1].tolist(),
        "points of error, first to last snapshot",
    )
    errors = tables["pruning"].pivot_table(index="seed", columns="keep_fraction", values="test_error")
    known = _PAPERS_FRACTION in errors.columns and 1.0 in errors.columns
    yield _difference(
        ("pruning_costs_nothing", "3.3.1", "Keeping the best 20 % of the library is no worse than keeping all of it."),
        (100.0 * (errors[1.0] - errors[_PAPERS_FRACTION])).dropna().tolist() if known else [],
        "points of error",
        margin=_MARGIN_POINTS,
    )
    verdicts = tables["smobf"].verdict.value_counts()
    yield _counted(
        ("smobf_dominates", "3.3.3", "SMOBF is Pareto dominant or equivalent to forward greedy each time."),
        int(verdicts.get("is dominated", 0)),
        int(verdicts.sum()),
        ", ".join(f"{name} {verdicts.get(name, 0)}" for name in ("dominates", "equal", "trade", "is dominated")),
    )
    seeds = tables["combiners"].groupby("seed")[["average", "weighted_average", "majority_vote"]].mean()
    yield _difference(
        ("voting_is_worse", "3.3.4", "Majority voting is inferior to averaging."),
        (seeds.majority_vote - seeds.average).dropna().tolist(),
        "points of error, mean of the budgets",
    )
    yield _difference(
        ("averaging_is_enough", "3.3.4", "Averaging is no worse than weighted averaging."),
        (seeds.weighted_average - seeds.average).dropna().tolist(),
        "points of error, mean of the budgets",
        margin=_MARGIN_POINTS,
    )
    # What is simulated is assumed in part.
    gains = tables["table_3"].loc[tables["table_3"].source == "measured", "gain"].dropna()
    yield _counted(
        ("refining_helps", "3.4", "Refining by measuring is faster than worst-fit alone each time."),
        int((gains <= 1.0).sum()),
        len(gains),
        f"{gains.min():.2f} to {gains.max():.2f} times as fast" if len(gains) else "",
    )


def _difference(named: tuple[str, str, str], values: Sequence[float], unit: str, margin: float = 0.0) -> Row:
    """A claim of a difference in its favour, one a seed."""
    row: Row = dict(zip(("name", "section", "claim"), named, strict=True)) | {"unit": unit, "n": len(values)}
    if not values:
        return row | {"verdict": CANNOT_TELL, "detail": "no seed has what it is about"}
    mean, low, high = mean_interval(values)
    bounds = {"low": low, "high": high} if math.isfinite(low) else {"detail": "one seed only"}
    return row | {"verdict": verdict_of(low, high, margin), "difference": mean, **bounds}


def _counted(named: tuple[str, str, str], n_against: int, n: int, detail: str) -> Row:
    """A claim of each time."""
    row: Row = dict(zip(("name", "section", "claim"), named, strict=True)) | {"n": n, "unit": "cases"}
    if n == 0:
        return row | {"verdict": CANNOT_TELL, "detail": "there is no case"}
    return row | {"verdict": FAILS if n_against else HOLDS, "detail": f"{n_against} of {n} against it: {detail}"}


def _readable(row: pd.Series) -> str:
    if pd.isna(row["difference"]):
        return str(row["detail"])
    text = f"{row['difference']:+.2f} {row['unit']}"
    return f"{text} ({row['detail']})" if pd.isna(row["low"]) else f"{text} ({row['low']:+.2f} to {row['high']:+.2f})"
