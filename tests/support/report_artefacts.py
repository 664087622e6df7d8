"""Made-up artefacts of every stage before the report, in the columns and keys that those stages write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensembleflow.io import write_csv, write_json
from ensembleflow.library import create_predictions, open_predictions

METRICS = ("error", "macro_f1_error", "cross_entropy", "brier")
STUDY = "digits-hyperband-s0"
FAILED_AT_START, FAILED_LATER, DIVERGED = 5, 11, 17


@dataclass(frozen=True)
class Artefacts:
    """Where each artefact of one made-up study lies, and what it was made with."""

    trials_csv: Path
    epochs_csv: Path
    models_csv: Path
    costs_csv: Path
    predictions_h5: Path
    baseline_json: Path
    baseline_csv: Path
    ensembles_csv: Path
    pareto_csv: Path
    selection_jsons: list[Path]
    allocation_jsons: list[Path]
    search_csvs: list[Path]
    max_epochs: int
    reduction_factor: int


def write_artefacts(
    results: Path,
    *,
    n_trials: int = 48,
    brackets: Sequence[int] | None = (0, 1, 2),
    max_epochs: int = 9,
    reduction_factor: int = 3,
    budgets: Sequence[str] = ("1x", "2x", "4x", "8x"),
    device_counts: Sequence[int] = (2,),
    max_members: int = 12,
    with_failed_bench: bool = True,
    objective: str = "throughput",
    bench_kind: str = "measured",
    engine: str = "tensorflow",
    seed: int = 0,
) -> Artefacts:
    """Write the artefacts of one study; `brackets=None` is random search, without brackets or rungs."""
    rng = np.random.default_rng(seed)
    study = results / STUDY
    search, library, selection = study / "search", study / "library", study / "selection"
    trials, epochs = _search(rng, n_trials, brackets, max_epochs, reduction_factor)
    models, costs = _library(rng, trials)
    ensembles = _ensembles(rng, models, costs, budgets, max_members)
    write_csv(search / "trials.csv", trials)
    write_csv(search / "epochs.csv", epochs)
    write_csv(library / "models.csv", models)
    write_csv(library / "costs.csv", costs)
    write_csv(selection / "ensembles.csv", ensembles)
    write_csv(selection / "pareto.csv", _pareto(ensembles))
    write_predictions(rng, library / "predictions.h5", models)
    write_baseline(rng, library / "predictions.h5")
    selection_jsons, allocation_jsons, search_csvs = [], [], []
    for budget in budgets:
        chosen = ensembles[ensembles.chosen & (ensembles.budget == budget)].iloc[0]
        selection_jsons.append(selection / f"budget-{budget}.json")
        write_json(selection_jsons[-1], _selection(chosen))
        for n_devices in device_counts:
            allocation, benches = allocation_of(
                rng, chosen, n_devices, costs, with_failed_bench, objective, bench_kind, engine
            )
            folder = study / "allocation" / f"budget-{budget}"
            allocation_jsons.append(folder / f"devices-{n_devices}.json")
            search_csvs.append(folder / f"search-{n_devices}.csv")
            write_json(allocation_jsons[-1], allocation)
            write_csv(search_csvs[-1], benches)
    return Artefacts(
        search / "trials.csv",
        search / "epochs.csv",
        library / "models.csv",
        library / "costs.csv",
        library / "predictions.h5",
        library / "baseline.json",
        library / "baseline.csv",
        selection / "ensembles.csv",
        selection / "pareto.csv",
        selection_jsons,
        allocation_jsons,
        search_csvs,
        max_epochs,
        reduction_factor,
    )


def write_predictions(
    rng: np.random.Generator,
    path: Path,
    models: pd.DataFrame,
    class_names: Sequence[str] = ("a", "b", "c"),
    n_test: int = 240,
    *,
    every_class: bool = True,
) -> None:
    """Class probabilities of the kept models, each right where chance and its own quality let it be."""
    kept = models[models.kept]
    labels = {split: rng.integers(0, len(class_names), n) for split, n in (("valid", 200), ("test", n_test))}
    facts = {"study": STUDY, "dataset_checksum": "ab" * 32, "class_names": class_names}
    facts |= {"models": list(kept.model), "weights_sha256": list(kept.weights_sha256), "labels": labels}
    with create_predictions(path, **facts, every_class=every_class) as writer:
        for place, error in enumerate(kept.valid_error):
            for split, truth in labels.items():
                logits = rng.normal(0, 1.6, (len(truth), len(class_names)))
                logits[np.arange(len(truth)), truth] += 3.5 - 8 * error
                powers = np.exp(logits)
                writer.write(split, place, 0, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))


def write_baseline(rng: np.random.Generator, predictions_h5: Path) -> None:
    """A baseline beside the cached predictions that answers a tenth of the images wrongly."""
    facts = {"classifier": "SVC(C=10, gamma='scale')", "turned_off": False, "n_train_images": 900}
    facts |= {"n_fitted_images": 900, "image_shape": [8, 8, 1], "fitted_shape": [8, 8, 1], "n_values": 64}
    write_json(predictions_h5.with_name("baseline.json"), {**facts, "reason": "", "dataset_checksum": "ab" * 32})
    tables = []
    with open_predictions(predictions_h5) as predictions:
        for split in ("valid", "test"):
            labels = predictions.labels(split)
            wrong = rng.random(len(labels)) < 0.1
            predicted = (labels + wrong) % predictions.n_classes
            images = range(len(labels))
            tables.append(pd.DataFrame({"split": split, "image": images, "label": labels, "predicted": predicted}))
    write_csv(predictions_h5.with_name("baseline.csv"), pd.concat(tables))


def _search(
    rng: np.random.Generator, n_trials: int, brackets: Sequence[int] | None, max_epochs: int, reduction_factor: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    trials, epochs, clock = [], [], 1_760_000_000.0
    seen: dict[tuple[int, int], list[float]] = {}
    for slot in range(n_trials):
        model = f"trial-{slot:05d}"
        bracket = None if brackets is None else int(rng.choice(brackets))
        floor, tau = 0.015 + float(rng.lognormal(np.log(0.02), 1.0)), float(rng.uniform(0.8, 4.0))
        state, reason, rung, started = "COMPLETE", "", 0, clock
        curve: dict[str, float] = {}
        for epoch in range(1, max_epochs + 1):
            if slot == FAILED_AT_START or (slot == FAILED_LATER and epoch == 2):
                state, reason = "FAIL", "out of memory"
                break
            error = float(np.clip(floor + 0.86 * np.exp(-epoch / tau) + rng.normal(0, 0.004), 0.002, 0.9))
            nan = slot == DIVERGED
            curve = {
                "valid_error": 0.9 if nan else error,
                "valid_macro_f1_error": 0.98 if nan else error * 1.03,
                "valid_cross_entropy": np.nan if nan else error * 3.2 + 0.02,
            }
            clock += 1.3
            row: dict[str, Any] = {"slot": slot, "model": model, "bracket": bracket, "epoch": epoch, "rung": None}
            row |= {"started_at": clock - 1.3, "ended_at": clock, "train_cross_entropy": error * 2.5}
            row |= {"train_error": error * 0.8, **curve, "learning_rate": 0.003}
            epochs.append(row)
            if bracket is not None and epoch == reduction_factor ** (bracket + rung):
                row["rung"] = rung
                rivals = seen.setdefault((bracket, rung), [])
                rivals.append(curve["valid_error"])
                rung += 1
                if curve["valid_error"] > sorted(rivals)[max(len(rivals) // reduction_factor, 1) - 1]:
                    state = "PRUNED"
                    break
        failed = state == "FAIL"
        n_epochs = sum(row["slot"] == slot for row in epochs)
        trials.append(
            {"slot": slot, "model": model, "state": state, "reason": reason, "bracket": bracket, "epochs": n_epochs}
            | {f"valid_{metric}": None if failed else curve[f"valid_{metric}"] for metric in METRICS[:3]}
            | {
                "n_parameters": None if failed else int(rng.lognormal(np.log(60_000), 0.9)),
                "weights_sha256": "" if failed else f"{slot:064x}",
                "started_at": started,
                "ended_at": clock,
                "duration_seconds": clock - started,
                "attempts": 1,
                "host": "node1",
                "device": "cpu",
                "learning_rate": 0.003,
                "batch_size": 32,
                "l2": 0.0001,
                "block": "v1",
                "activation": "relu",
                "stem_filters": 16,
                "stage_filters": 16,
                "schedule": "cosine",
                "weight_decay": 0.0,
            }
            | {f"blocks_stage_{stage}": 1 for stage in range(1, 5)}
            | {f"max_{name}": 0.1 for name in ("zoom", "translation", "shear", "channel_shift", "rotation_degrees")}
        )
    columns = [
        "slot",
        "model",
        "bracket",
        "epoch",
        "rung",
        "started_at",
        "ended_at",
        "train_cross_entropy",
        "train_error",
        "valid_error",
    ]
    columns += ["valid_macro_f1_error", "valid_cross_entropy", "learning_rate"]
    tables = pd.DataFrame(trials), pd.DataFrame(epochs, columns=columns)
    return tables[0].astype({"bracket": "Int64", "n_parameters": "Int64"}), tables[1].astype(
        {"bracket": "Int64", "rung": "Int64"}
    )


def _library(rng: np.random.Generator, trials: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    models = trials.copy()
    diverged = models.valid_cross_entropy.isna() & (models.state != "FAIL")
    dropped = models.state.map(lambda state: "failed" if state == "FAIL" else "")
    models.insert(0, "dropped", dropped.mask(diverged, "diverged"))
    models = models.sort_values(["dropped", "valid_error", "slot"], kind="stable", ignore_index=True)
    ranked = models.dropped == ""
    models.insert(0, "rank", pd.Series(range(1, len(models) + 1), dtype="Int64").where(ranked))
    n_kept = max(1, int(len(trials) * 0.2 + 0.5))
    models.insert(2, "kept", ranked & (models["rank"].fillna(len(models) + 1) <= n_kept))
    models = models[
        ["rank", "model", "slot", "kept", "dropped", *trials.columns.difference(["model", "slot"], sort=False)]
    ]
    kept = models[models.kept]
    seconds = 0.12 + kept.n_parameters.astype(float) / 1e5 * rng.uniform(0.4, 1.6, len(kept))
    costs = pd.DataFrame(
        {"model": kept.model, "device": "cpu", "engine": "tensorflow", "threads": 1, "cost_seconds": seconds}
    )
    costs = costs.assign(
        cost_seconds_q25=seconds * 0.98, cost_seconds_q75=seconds * 1.05, cost_seconds_min=seconds * 0.97
    )
    costs = costs.assign(images_per_second=2000 / seconds, n_images=2000, batch_size=100, repeats=15)
    return models, costs.assign(parameter_bytes=kept.n_parameters * 4, other_work_percent=3.0)


def _ensembles(
    rng: np.random.Generator, models: pd.DataFrame, costs: pd.DataFrame, budgets: Sequence[str], max_members: int
) -> pd.DataFrame:
    kept = models[models.kept].merge(costs[["model", "cost_seconds"]], on="model")
    median = kept.cost_seconds.median()
    cheap_first = kept.assign(score=kept.valid_error * kept.cost_seconds**0.3).sort_values("score")
    rows = []
    answers: dict[frozenset[str], dict[str, float]] = {}

    def row(method: str, budget: str | None, seconds: float | None, weight: float | None, chosen: pd.DataFrame) -> None:
        error = float(chosen.valid_error.mean()) / (1 + 0.55 * np.log(len(chosen))) * float(rng.uniform(0.97, 1.03))
        factors = {"error": 1.0, "macro_f1_error": 1.02, "cross_entropy": 3.0, "brier": 1.5}
        metrics = {f"valid_{name}": error * factor for name, factor in factors.items()}
        metrics |= {f"test_{name}": error * factor * float(rng.uniform(1.0, 1.3)) for name, factor in factors.items()}
        metrics = answers.setdefault(frozenset(chosen.model), metrics)
        cost = float(chosen.cost_seconds.sum())
        rows.append(
            {"method": method, "budget": budget, "budget_seconds": seconds, "weight": weight}
            | {"n_members": len(chosen), "members": " ".join(chosen.model), "cost_seconds": cost, **metrics}
            | {"chosen": method == "smobf" and weight == 0.01}
        )

    row("best_single", None, None, None, kept.iloc[:1])
    for budget in budgets:
        seconds = float(budget.removesuffix("x")) * (median if budget.endswith("x") else 1.0)
        fitting = kept[kept.cost_seconds <= seconds]
        row("best_single", budget, seconds, None, fitting.iloc[:1])
        for weight, order in ((0.1, cheap_first), (0.01, cheap_first), (0.001, kept)):
            order = order[order.cost_seconds <= seconds]
            n_members = max(1, min(max_members, int((order.cost_seconds.cumsum() <= seconds).sum())))
            row("smobf", budget, seconds, weight, order.iloc[:n_members])
        path: list[int] = []
        for place, cost in enumerate(kept.cost_seconds):
            if len(path) < max_members and kept.cost_seconds.iloc[path].sum() + cost <= seconds:
                path.append(place)
                row("forward_greedy", budget, seconds, None, kept.iloc[path])
    return pd.DataFrame(rows)


def _pareto(ensembles: pd.DataFrame) -> pd.DataFrame:
    distinct = ensembles.loc[ensembles.members.map(lambda ids: frozenset(ids.split())).drop_duplicates().index]
    ordered = distinct.sort_values(["cost_seconds", "valid_cross_entropy"])
    best = ordered.valid_cross_entropy.cummin()
    return ordered[best.diff().fillna(-1.0) < 0]


def _selection(chosen: pd.Series) -> dict[str, Any]:
    return {
        "study": STUDY,
        "budget": chosen.budget,
        "budget_seconds": chosen.budget_seconds,
        "loss": "cross_entropy",
        "weight": chosen.weight,
        "members": chosen.members.split(),
        "cost_seconds": chosen.cost_seconds,
        "valid": {metric: chosen[f"valid_{metric}"] for metric in METRICS},
        "test": {metric: chosen[f"test_{metric}"] for metric in METRICS},
        "ensembles": [],
        "trace": [],
        "provenance": {},
    }


def allocation_of(
    rng: np.random.Generator,
    chosen: pd.Series,
    n_devices: int,
    costs: pd.DataFrame,
    with_failed_bench: bool,
    objective: str,
    bench_kind: str,
    engine: str,
) -> tuple[dict[str, Any], pd.DataFrame]:
    members = chosen.members.split()
    cost = costs.set_index("model").cost_seconds
    placed = {model: (index % n_devices, 32) for index, model in enumerate(members)}

    def speed(allocation: dict[str, tuple[int, int]]) -> float:
        load = np.zeros(n_devices)
        for model, (device, batch_size) in allocation.items():
            load[device] += cost[model] * {8: 1.6, 32: 1.1, 128: 0.9}[batch_size]
        return float(2000 / load.max() * rng.uniform(0.99, 1.01))

    benches: list[dict[str, Any]] = []

    def bench(step: int, move: str, allocation: dict[str, tuple[int, int]]) -> float:
        broken = with_failed_bench and len(benches) == 3
        score = 0.0 if broken else speed(allocation)
        text = " ".join(f"{model}@cpu{device}/{size}" for model, (device, size) in allocation.items())
        benches.append(
            {"bench": len(benches) + 1, "step": step, "move": move, "accepted": False, "images_per_second": score}
            | {"images_per_second_q25": score * 0.98, "images_per_second_q75": score * 1.01}
            | {"failure": "out of memory" if broken else "", "allocation": text, "objective": objective}
            | {"latency_p50_ms": 2e4 / max(score, 1.0), "latency_p99_ms": 3e4 / max(score, 1.0)}
            | {"bench_kind": bench_kind}
        )
        return score

    best = worst_fit = bench(0, "start", placed)
    benches[0]["accepted"] = True
    for step in range(1, 4):
        moves = []
        for model in members:
            device, size = placed[model]
            moves += [(model, (device, other), f"{model}: batch {size} -> {other}") for other in (8, 32, 128)]
            moves += [(model, (other, size), f"{model}: cpu{device} -> cpu{other}") for other in range(n_devices)]
        scores = []
        for model, place, move in moves:
            if place != placed[model] and len(benches) < 24:
                scores.append((bench(step, move, placed | {model: place}), len(benches) - 1, model, place))
        if not scores or max(scores)[0] <= best:
            break
        best, index, model, place = max(scores)
        benches[index]["accepted"] = True
        placed[model] = place
    allocation = {
        "study": STUDY,
        "budget": chosen.budget,
        "n_devices": n_devices,
        "devices": [{"name": f"cpu{i}", "core_ids": [i], "memory_mb": 6144} for i in range(n_devices)],
        "members": [
            {"model": model, "device": f"cpu{device}", "batch_size": size, "engine": engine, "memory_mb": 300 + size}
            for model, (device, size) in placed.items()
        ],
        "images_per_second": best,
        "images_per_second_q25": best * 0.98,
        "images_per_second_q75": best * 1.01,
        "worst_fit_images_per_second": worst_fit,
        "n_benches": len(benches),
        "stop_reason": "no neighbour is faster",
        "other_work_percent": 2.0,
        "bench": {"kind": bench_kind, "objective": objective, "n_images": 2000, "repeats": 3},
        "provenance": {},
    }
    return allocation, pd.DataFrame(benches)
