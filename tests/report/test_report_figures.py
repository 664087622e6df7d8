"""Every figure: from ordinary and awkward artefacts, of the promised size, the same bytes each time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from ensembleflow.config import ReportConfig
from ensembleflow.errors import ArtefactError
from ensembleflow.report import (
    plot_allocation,
    plot_error_against_cost,
    plot_learning_curves,
    plot_library_distribution,
)
from ensembleflow.report.drawing import BLUE, RED, YELLOW
from ensembleflow.report.labels import Label, place_labels
from support.report_artefacts import DIVERGED, FAILED_AT_START, FAILED_LATER, Artefacts, write_artefacts

Draw = Callable[[Artefacts, Path, ReportConfig], None]


def outputs(folder: Path, name: str) -> tuple[Path, Path, Path]:
    return folder / "tables" / f"{name}.csv", folder / "figures" / f"{name}.png", folder / "figures" / f"{name}.svg"


def draw_learning_curves(made: Artefacts, folder: Path, config: ReportConfig) -> None:
    files = outputs(folder, "learning_curves")
    plot_learning_curves(
        made.trials_csv, made.epochs_csv, config, "error", made.max_epochs, 1, made.reduction_factor, *files
    )


def draw_library_distribution(made: Artefacts, folder: Path, config: ReportConfig) -> None:
    plot_library_distribution(
        made.models_csv, made.costs_csv, config, "error", *outputs(folder, "library_distribution")
    )


def draw_error_against_cost(made: Artefacts, folder: Path, config: ReportConfig) -> None:
    files = outputs(folder, "error_against_cost")
    plot_error_against_cost(made.ensembles_csv, made.pareto_csv, config, "cross_entropy", 2000, *files)


def draw_allocation(made: Artefacts, folder: Path, config: ReportConfig) -> None:
    table, png, svg = outputs(folder, "allocation")
    members = folder / "tables" / "allocation_members.csv"
    plot_allocation(made.allocation_jsons, made.search_csvs, config, table, members, png, svg)


FIGURES: dict[str, Draw] = {
    "learning_curves": draw_learning_curves,
    "library_distribution": draw_library_distribution,
    "error_against_cost": draw_error_against_cost,
    "allocation": draw_allocation,
}
QUICK = ReportConfig(dpi=60)
SEARCH_FIGURES = ("learning_curves", "library_distribution")
ENSEMBLE_FIGURES = ("error_against_cost", "allocation")
AWKWARD: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (SEARCH_FIGURES[:1], {"brackets": None}),
    (SEARCH_FIGURES[:1], {"brackets": (1,)}),
    (SEARCH_FIGURES[:1], {"n_trials": 12, "max_epochs": 100, "brackets": (0, 3)}),
    (tuple(FIGURES), {"n_trials": 1, "budgets": ("2x",)}),
    (ENSEMBLE_FIGURES, {"budgets": ("320",)}),
    (ENSEMBLE_FIGURES, {"budgets": ("8x",), "max_members": 1, "device_counts": (1,)}),
    (ENSEMBLE_FIGURES[1:], {"budgets": ("2x", "8x"), "with_failed_bench": False}),
    (ENSEMBLE_FIGURES[1:], {"budgets": ("2x", "8x"), "device_counts": (1, 2, 3)}),
    (ENSEMBLE_FIGURES[1:], {"budgets": ("8x",), "max_members": 2, "device_counts": (4,)}),
    (ENSEMBLE_FIGURES[1:], {"budgets": ("2x",), "objective": "latency_p99", "engine": "onnxruntime"}),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    return write_artefacts(tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize("name", FIGURES)
def test_drawing_again_gives_the_same_bytes(name: str, made: Artefacts, tmp_path: Path) -> None:
    for run in ("first", "second"):
        FIGURES[name](made, tmp_path / run, QUICK)
    written = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert {path.suffix for path in written} == {".csv", ".png", ".svg"}
    for path in written:
        assert (tmp_path / "first" / path).read_bytes() == (tmp_path / "second" / path).read_bytes(), path


@pytest.mark.parametrize("name", FIGURES)
def test_figures_carry_no_date_and_no_software_version(name: str, made: Artefacts, tmp_path: Path) -> None:
    FIGURES[name](made, tmp_path, QUICK)
    _table, png, svg = outputs(tmp_path, name)
    with Image.open(png) as image:
        assert set(image.info) <= {"dpi"}
    assert "<dc:date>" not in svg.read_text(encoding="utf-8")
    assert "<dc:creator>" not in svg.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("width", [3.0, 6.5])
def test_width_and_resolution_are_those_of_the_config(name: str, width: float, made: Artefacts, tmp_path: Path) -> None:
    FIGURES[name](made, tmp_path, ReportConfig(dpi=80, figure_width_inches=width))
    with Image.open(outputs(tmp_path, name)[1]) as image:
        assert image.width == round(80 * width)


@pytest.mark.parametrize(
    ("name", "artefacts"),
    [pytest.param(name, artefacts, id=f"{name}-{artefacts}") for names, artefacts in AWKWARD for name in names],
)
def test_awkward_artefacts_are_drawn(name: str, artefacts: dict[str, Any], tmp_path: Path) -> None:
    FIGURES[name](write_artefacts(tmp_path, **artefacts), tmp_path, QUICK)
    with Image.open(outputs(tmp_path, name)[1]) as image:
        assert len(image.convert("L").getcolors()) > 2, "the figure is blank"


def test_a_study_whose_trials_all_failed_still_has_its_search_figures(made: Artefacts, tmp_path: Path) -> None:
    trials = pd.read_csv(made.trials_csv)
    trials["state"] = "FAIL"
    trials[["valid_error", "n_parameters"]] = np.nan
    trials.to_csv(tmp_path / "trials.csv", index=False)
    pd.read_csv(made.epochs_csv).head(0).to_csv(tmp_path / "epochs.csv", index=False)
    plot_learning_curves(
        tmp_path / "trials.csv", tmp_path / "epochs.csv", QUICK, "error", 9, 1, 3, *outputs(tmp_path, "learning_curves")
    )
    models = trials.assign(rank=np.nan, kept=False, dropped="failed")
    models.to_csv(tmp_path / "models.csv", index=False)
    pd.read_csv(made.costs_csv).head(0).to_csv(tmp_path / "costs.csv", index=False)
    plot_library_distribution(
        tmp_path / "models.csv", tmp_path / "costs.csv", QUICK, "error", *outputs(tmp_path, "library_distribution")
    )


def test_the_curves_table_tells_how_each_trial_ended(made: Artefacts, tmp_path: Path) -> None:
    draw_learning_curves(made, tmp_path, QUICK)
    table = pd.read_csv(outputs(tmp_path, "learning_curves")[0])
    epochs = pd.read_csv(made.epochs_csv)
    assert len(table) == len(epochs)
    ends = table.groupby("slot").agg(n=("epoch", "size"), last=("last_epoch", "first"), outcome=("outcome", "first"))
    assert (ends.n == ends["last"]).all()
    assert (ends.outcome[ends["last"] == made.max_epochs] == "all 9 epochs").all()
    assert ends.outcome[FAILED_LATER] == "failed"
    assert FAILED_AT_START not in ends.index
    assert set(ends.outcome) == {"stopped after epoch 1", "stopped after epoch 3", "all 9 epochs", "failed"}


def test_the_library_table_has_every_model_and_why_it_was_dropped(made: Artefacts, tmp_path: Path) -> None:
    draw_library_distribution(made, tmp_path, QUICK)
    table = pd.read_csv(outputs(tmp_path, "library_distribution")[0]).set_index("slot")
    assert len(table) == len(pd.read_csv(made.trials_csv))
    assert table.dropped[[FAILED_AT_START, FAILED_LATER, DIVERGED]].tolist() == ["failed", "failed", "diverged"]
    assert table.cost_seconds.notna().equals(table.kept)
    assert table.kept.sum() == 10


def test_the_ensembles_table_has_each_set_of_members_once_a_method(made: Artefacts, tmp_path: Path) -> None:
    draw_error_against_cost(made, tmp_path, QUICK)
    table = pd.read_csv(outputs(tmp_path, "error_against_cost")[0], dtype={"budgets": str})
    ensembles = pd.read_csv(made.ensembles_csv, dtype={"budget": str})
    sets = ensembles.members.map(lambda ids: frozenset(ids.split()))
    assert len(table) == len(set(zip(ensembles.method, sets, strict=True)))
    chosen = table[table.chosen]
    assert sorted(" ".join(chosen.budgets).split()) == sorted(ensembles.budget.dropna().unique())
    front = pd.read_csv(made.pareto_csv)
    assert set(table.members[table.on_pareto_front].map(lambda ids: frozenset(ids.split()))) == set(
        front.members.map(lambda ids: frozenset(ids.split()))
    )


def rewritten(made: Artefacts, folder: Path, ensembles: pd.DataFrame) -> Artefacts:
    path = folder / "ensembles.csv"
    ensembles.to_csv(path, index=False)
    return replace(made, ensembles_csv=path)


def test_with_a_local_search_its_ensembles_are_those_chosen(made: Artefacts, tmp_path: Path) -> None:
    ensembles = pd.read_csv(made.ensembles_csv, dtype={"budget": str})
    searched = ensembles[ensembles.chosen].assign(method="local_search", weight=None)
    ensembles["chosen"] = False
    draw_error_against_cost(
        rewritten(made, tmp_path, pd.concat([ensembles, searched], ignore_index=True)), tmp_path, QUICK
    )
    table = pd.read_csv(outputs(tmp_path, "error_against_cost")[0])
    assert set(table.method[table.chosen]) == {"local_search"}
    assert (table.method == "smobf").any()
    text = outputs(tmp_path, "error_against_cost")[2].read_text(encoding="utf-8")
    assert "SMOBF, local search" in text and "SMOBF before the local search" in text


def test_budgets_without_seconds_or_of_several_limits_are_drawn(made: Artefacts, tmp_path: Path) -> None:
    ensembles = pd.read_csv(made.ensembles_csv, dtype={"budget": str})
    others = {"2x": "parameter_bytes=2x", "4x": "2x,peak_memory_bytes=3x"}
    ensembles["budget"] = ensembles.budget.replace(others)
    ensembles.loc[ensembles.budget == "parameter_bytes=2x", "budget_seconds"] = np.nan
    draw_error_against_cost(rewritten(made, tmp_path, ensembles), tmp_path, QUICK)
    table = pd.read_csv(outputs(tmp_path, "error_against_cost")[0])
    assert set(" ".join(table.budgets[table.chosen]).split()) == {"1x", "8x", *others.values()}
    text = outputs(tmp_path, "error_against_cost")[2].read_text(encoding="utf-8")
    assert "parameter_bytes=2x" in text and "2x,peak_memory_bytes=3x" in text


def test_without_every_class_the_ensembles_cross_entropy_is_drawn(made: Artefacts, tmp_path: Path) -> None:
    ensembles = pd.read_csv(made.ensembles_csv, dtype={"budget": str})
    of_every_class = [name for name in ensembles if name.endswith(("error", "brier"))]
    unknown = ensembles.assign(**dict.fromkeys(of_every_class, np.nan))
    draw_error_against_cost(rewritten(made, tmp_path, unknown), tmp_path, QUICK)
    text = outputs(tmp_path, "error_against_cost")[2].read_text(encoding="utf-8")
    assert "validation cross-entropy (nats)" in text and "error (%)" not in text


def test_the_allocation_tables_have_every_bench_and_every_member(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("2x", "8x"), device_counts=(1, 3))
    draw_allocation(made, tmp_path, QUICK)
    benches = pd.read_csv(outputs(tmp_path, "allocation")[0])
    assert len(benches) == sum(len(pd.read_csv(path)) for path in made.search_csvs)
    assert benches[["budget", "n_devices"]].drop_duplicates().values.tolist() == [
        ["2x", 1],
        ["2x", 3],
        ["8x", 1],
        ["8x", 3],
    ]
    members = pd.read_csv(tmp_path / "tables" / "allocation_members.csv")
    assert set(members.device[members.n_devices == 3]) == {"cpu0", "cpu1", "cpu2"}
    ensembles = pd.read_csv(made.ensembles_csv)
    chosen = ensembles[ensembles.chosen].set_index("budget").n_members
    for budget in ("2x", "8x"):
        assert (members[members.n_devices == 3].budget[members.model.notna()] == budget).sum() == chosen[budget]


def text_of(made: Artefacts, folder: Path) -> str:
    draw_allocation(made, folder, QUICK)
    return outputs(folder, "allocation")[2].read_text(encoding="utf-8")


def test_a_simulated_allocation_says_so_in_figure_and_table_and_a_measured_one_does_not(tmp_path: Path) -> None:
    measured, simulated = (
        write_artefacts(tmp_path / kind, budgets=("2x",), bench_kind=kind) for kind in ("measured", "simulated")
    )
    assert "(simulated)" in text_of(simulated, tmp_path / "simulated")
    assert "(simulated)" not in text_of(measured, tmp_path / "measured")
    for kind in ("measured", "simulated"):
        assert set(pd.read_csv(outputs(tmp_path / kind, "allocation")[0]).bench_kind) == {kind}


def test_a_search_by_latency_is_titled_with_it_and_other_engines_stand_in_the_cells(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("2x",), objective="latency_p50", engine="openvino")
    text = text_of(made, tmp_path)
    assert "ms p50" in text and "OV" in text and "batch size and engine of each member" in text


def test_a_table_without_the_metric_is_named(made: Artefacts, tmp_path: Path) -> None:
    pd.read_csv(made.epochs_csv).drop(columns="valid_error").to_csv(tmp_path / "epochs.csv", index=False)
    with pytest.raises(ArtefactError, match=r"(?s)lacks columns.*epochs\.csv.*valid_error"):
        plot_learning_curves(
            made.trials_csv, tmp_path / "epochs.csv", QUICK, "error", 9, 1, 3, *outputs(tmp_path, "learning_curves")
        )
    assert not (tmp_path / "figures").exists()


def test_allocations_without_their_searches_are_refused(made: Artefacts, tmp_path: Path) -> None:
    table, png, svg = outputs(tmp_path, "allocation")
    with pytest.raises(ArtefactError, match="do not pair up"):
        plot_allocation(made.allocation_jsons, made.search_csvs[:1], QUICK, table, tmp_path / "m.csv", png, svg)


def test_the_methods_colours_differ_in_lightness() -> None:
    lightness = sorted(float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722))) for colour in (BLUE, YELLOW, RED))
    assert all(brighter - darker > 0.15 for darker, brighter in itertools.pairwise(lightness))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12, unique=True))
def test_labels_keep_clear_of_each_other_and_inside_the_axes(places: list[tuple[int, int]]) -> None:
    figure = Figure(figsize=(6, 4))
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlim=(-1, 10), ylim=(-1, 10))
    figure.draw_without_rendering()
    points = np.array(places, dtype=float)
    place_labels(axes, [Label(x, y, "B=4x #3", "black") for x, y in points], points, [points], font_size=7)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts if text.get_text()]
    assert len(boxes) == len(places)
    frame = axes.get_window_extent()
    for box in boxes:
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
