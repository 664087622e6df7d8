"""The page without a browser: the same bytes each time, what is missing, and the statistics that it quotes."""

from __future__ import annotations

import json
import math
import re
import shutil
from html import unescape
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multinomial
from sklearn.ensemble import RandomForestRegressor

from ensembleflow.cli import main
from ensembleflow.errors import ArtefactError
from ensembleflow.models.hyperparameters import Hyperparameters
from ensembleflow.models.metrics import calibration_error
from ensembleflow.report import make_report
from ensembleflow.report.answers import Answers, difference_interval, error_interval, paired_difference
from ensembleflow.report.page.importance import _forest_predictions, permutation_importances
from ensembleflow.report.page.look import log_ticks, value_axis
from ensembleflow.report.page.search import _redrawn
from ensembleflow.report.page.study import Study
from ensembleflow.search.record import TrialRecord, TrialStore
from support.complete_study import BUDGETS, write_study
from support.report_artefacts import FAILED_AT_START, FAILED_LATER, STUDY
from support.trial_records import epoch_of, run_of

PLOTS = {
    "search": {"learning-curves", "hyperparameters", "importances", "timeline"},
    "library": {"models", "costs"},
    "selection": {"trace", "fronts"},
    "allocation": {"benches"},
}
EVERY_PLOT = {"front", "calibration", "confusion"}.union(*PLOTS.values())


@pytest.fixture
def copied(results: Path, tmp_path: Path) -> Path:
    """The complete study's results, to be damaged."""
    return Path(shutil.copytree(results, tmp_path / "results"))


def made(results: Path) -> str:
    page = results / "report.html"
    make_report(results, page)
    return page.read_text(encoding="utf-8")


def plots(page: str) -> set[str]:
    return set(re.findall(r'data-plot="plot-([a-z-]+)-\d+"', page))


def missing(page: str) -> str:
    """What the page says is missing, as text."""
    notes = re.findall(r'<div class="missing" role="note">(.*?)</div>', page, re.DOTALL)
    return unescape(re.sub(r"<[^>]+>", " ", " ".join(notes)))


def test_the_same_artefacts_make_the_same_bytes(page: Path, results: Path) -> None:
    first = page.read_bytes()
    make_report(results, page)
    assert page.read_bytes() == first


def test_a_complete_study_lacks_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert plots(text) == EVERY_PLOT
    assert "Missing here" not in missing(text)


def test_it_asks_for_nothing_from_outside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    own = text.replace(re.search(r"<script>/\*\*\n\* plotly\.js.*?</script>", text, re.DOTALL)[0], "")
    assert len(own) < 1_000_000
    assert "plotly.js" not in own, "the library is inlined once"
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", own) == []
    assert "default-src 'none'" in own


def test_names_from_the_data_are_text(page: Path) -> None:
    assert "</script><b>elm</b>" not in page.read_text(encoding="utf-8")
    assert "&lt;/script&gt;&lt;b&gt;elm&lt;/b&gt;" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", PLOTS)
def test_a_stage_that_did_not_run_is_named_and_the_others_are_drawn(copied: Path, stage: str) -> None:
    shutil.rmtree(copied / STUDY / stage)
    text = made(copied)
    told = missing(text)
    assert f"snakemake --cores all {stage}" in told
    assert not plots(text) & PLOTS[stage]
    # Costs count images, which the table of costs knows; the rest does without.
    needs_library = {"front", "calibration", "confusion", "trace", "fronts"} if stage == "library" else set()
    needs_selection = {"front", "calibration", "confusion"} if stage == "selection" else set()
    assert plots(text) == EVERY_PLOT - PLOTS[stage] - needs_library - needs_selection


def test_a_search_that_still_runs_has_a_page(tmp_path: Path) -> None:
    (tmp_path / STUDY / "search").mkdir(parents=True)
    (tmp_path / STUDY / "search" / "study.journal").touch()
    text = made(tmp_path)
    assert plots(text) == set()
    for command in ("search", "library", "selection", "allocation"):
        assert f"snakemake --cores all {command}" in missing(text)


def test_a_search_that_still_runs_shows_the_learning_curves_that_there_are(tmp_path: Path) -> None:
    for slot, n_epochs, state in [(0, 9, "COMPLETE"), (1, 1, "PRUNED"), (2, 3, "RUNNING"), (3, 0, "RUNNING")]:
        record = TrialRecord(slot, state, bracket=slot % 2, runs=[run_of(slot, 0.0, 9.0)])
        record.epochs = [epoch_of(epoch, 0.5 / epoch, 0) for epoch in range(1, n_epochs + 1)]
        TrialStore(tmp_path / STUDY / "search/store/0f0f" / f"trial-{slot:05d}").write(record)
    text = made(tmp_path)
    assert plots(text) == {"learning-curves"}
    assert "The search has not ended" in text
    assert "trial-00002" in text
    assert "not ended" in text
    assert "trials.csv" not in missing(text)
    assert "snakemake --cores all library" in missing(text)


def test_a_bundle_that_is_missing_has_no_command_to_serve_it(copied: Path) -> None:
    shutil.rmtree(copied / STUDY / "bundles" / f"budget-{BUDGETS[1]}")
    text = made(copied)
    assert "snakemake --cores all bundles" in missing(text)
    served = set(re.findall(r"ensembleflow serve \S+/budget-(\w+)</code>", text))
    assert served == {budget for budget in BUDGETS if budget != BUDGETS[1]}


def test_a_damaged_artefact_is_told_where_it_would_be_seen(copied: Path) -> None:
    (copied / STUDY / "library" / "predictions.h5").write_bytes(b"no HDF5")
    (copied / STUDY / "search" / "accounting.json").write_text("{", encoding="utf-8")
    text = made(copied)
    assert "predictions.h5" in missing(text) and "accounting.json" in missing(text)
    assert plots(text) == EVERY_PLOT - {"calibration", "confusion"}
    assert "95" not in re.search(r"<dt>test error</dt>.*?</dd>", text, re.DOTALL)[0], "no interval without the images"


def test_failed_trials_are_named(page: Path) -> None:
    told = missing(page.read_text(encoding="utf-8"))
    assert "2 of 48 trials failed" in told
    for slot in (FAILED_AT_START, FAILED_LATER):
        assert f"slot {slot}: out of memory" in told


def test_without_every_class_the_cross_entropy_is_drawn(tmp_path: Path) -> None:
    write_study(tmp_path, every_class=False)
    text = made(tmp_path)
    assert plots(text) == EVERY_PLOT - {"calibration", "confusion"}
    front = json.loads(re.search(r'data-plot="plot-front-1">(.*?)</script>', text)[1])
    assert front["layout"]["yaxis"]["title"]["text"] == "test cross-entropy (nats)"
    shown = re.sub(r"<(script|style)>?.*?</\1>", "", text, flags=re.DOTALL)
    assert re.findall(r"\bnan\b|\bNone\b", shown) == []
    assert shown.count("<dt>test cross-entropy</dt>") == len(BUDGETS)


def test_a_simulated_allocation_says_so_and_has_no_bundle(tmp_path: Path) -> None:
    write_study(tmp_path, objective="latency_p99", bench_kind="simulated")
    text = made(tmp_path)
    assert plots(text) == EVERY_PLOT
    assert "Missing here" not in missing(text)
    assert text.count("<dt>simulated speed</dt>") == text.count("only simulated") == len(BUDGETS)
    assert "ensembleflow serve" not in text
    benches = json.loads(re.search(r'data-plot="plot-benches-1">(.*?)</script>', text)[1])
    assert benches["layout"]["yaxis"]["title"]["text"] == "latency p99 (ms)"


def test_a_budget_that_left_the_config_left_the_page(copied: Path) -> None:
    config = (copied / "run_config.yaml").read_text(encoding="utf-8")
    (copied / "run_config.yaml").write_text(config.replace("  - 4x\n", ""), encoding="utf-8")
    assert set(re.findall(r'<article class="choice"[^>]* data-budget="(\w+)"', made(copied))) == {"1x", "2x"}
    (copied / "run_config.yaml").unlink()
    text = made(copied)
    assert set(re.findall(r'<article class="choice"[^>]* data-budget="(\w+)"', text)) == set(BUDGETS)
    assert f"run_config.yaml of {STUDY}" in missing(text)


def test_the_command_makes_the_page(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "elsewhere" / "page.html"
    assert main(["report", "--results", str(copied), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"report: {output}\n"
    (link,) = set(re.findall(r'href="([^"]*runs\.csv)"', output.read_text(encoding="utf-8")))
    assert (output.parent / link).resolve() == (copied / STUDY / "search/runs.csv").resolve()


def test_the_command_asks_which_of_several_studies(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(copied / STUDY, copied / "digits-hyperband-s1")
    (copied / "run_config.yaml").unlink()
    assert main(["report", "--results", str(copied)]) == 1
    told = capsys.readouterr().err
    assert "several studies" in told and "--study" in told
    assert main(["report", "--results", str(copied), "--study", "digits-hyperband-s1"]) == 0
    assert "seed 1" in (copied / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [None, "leaves-random-s0"])
def test_a_study_that_is_not_there_is_one_message(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(ArtefactError, match="no study to report"):
        make_report(tmp_path, tmp_path / "report.html", name)
    assert not (tmp_path / "report.html").exists()


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(counts: tuple[int, int]) -> None:
    n_wrong, n_images = counts
    low, high = error_interval(n_wrong, n_images)
    share, z = n_wrong / n_images, 1.959963984540054
    middle = (share + z**2 / (2 * n_images)) / (1 + z**2 / n_images)
    half = z * math.sqrt(share * (1 - share) / n_images + z**2 / (4 * n_images**2)) / (1 + z**2 / n_images)
    assert low == pytest.approx(middle - half, abs=1e-9) and high == pytest.approx(middle + half, abs=1e-9)
    assert low <= share <= high


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(2, 6))
@settings(max_examples=40)
def test_the_bins_give_the_calibration_error(seed: int, n_images: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(n_classes), n_images)
    labels = rng.integers(0, n_classes, n_images)
    answers = Answers(labels, probabilities.argmax(axis=1), probabilities.max(axis=1))
    bins = answers.bins()
    assert sum(each.n_images for each in bins) == n_images
    error = sum(each.n_images * abs(each.confidence - each.accuracy) for each in bins) / n_images
    assert error == pytest.approx(calibration_error(probabilities, labels), abs=1e-12)
    assert all(each.interval[0] <= each.accuracy <= each.interval[1] for each in bins)


def answered(right: np.ndarray) -> Answers:
    """Answers of two classes that are right and wrong as given."""
    return Answers(np.zeros(len(right), dtype=np.int64), (~right).astype(np.int64), np.ones(len(right)))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_paired_difference_turns_its_sign_with_its_ensembles_and_lies_in_its_interval(
    pairs: list[tuple[bool, bool]],
) -> None:
    one, other = (answered(np.array(right)) for right in zip(*pairs, strict=True))
    difference, low, high = difference_interval(one, other)
    assert difference == pytest.approx((one.n_wrong - other.n_wrong) / len(pairs))
    assert -1 - 1e-9 <= low <= difference <= high <= 1 + 1e-9
    assert difference_interval(other, one) == pytest.approx((-difference, -high, -low))


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize(("both", "only_one", "only_other"), [(0.05, 0.05, 0.02), (0.0, 0.1, 0.1), (0.2, 0.02, 0.02)])
def test_a_paired_interval_holds_the_true_difference_about_as_often_as_it_says(
    n: int, both: float, only_one: float, only_other: float
) -> None:
    """The exact coverage: every outcome of n images, weighted by its probability."""
    right = 1 - both - only_one - only_other
    covered = 0.0
    counts = ((a, b, c) for a in range(n + 1) for b in range(n + 1 - a) for c in range(n + 1 - a - b))
    for outcome in counts:
        weight = multinomial.pmf([*outcome, n - sum(outcome)], n, [both, only_one, only_other, right])
        if weight < 1e-6:
            continue
        a, b, c = outcome
        wrong = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [a, b, c, n - a - b - c], axis=0).astype(bool)
        _, low, high = difference_interval(answered(~wrong[:, 0]), answered(~wrong[:, 1]))
        covered += weight * (low <= only_one - only_other <= high)
    assert 0.93 < covered <= 1


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemars_test_is_a_sign_test_of_the_images_that_differ(pairs: list[tuple[bool, bool]]) -> None:
    one, other = (answered(np.array(right)) for right in zip(*pairs, strict=True))
    ours, theirs, p_value = paired_difference(one, other)
    assert ours == pairs.count((True, False)) and theirs == pairs.count((False, True))
    n, least = ours + theirs, min(ours, theirs)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    assert p_value == pytest.approx(min(1.0, 2 * tail))


def test_a_hyperparameter_that_decides_ranks_first() -> None:
    rng = np.random.default_rng(0)
    n_trials = 80
    trials = pd.DataFrame({name: rng.uniform(size=n_trials) for name in Hyperparameters.names()})
    trials = trials.assign(block=rng.choice(["v1", "v2", "next"], n_trials), activation="relu")
    trials["epochs"] = rng.choice([1, 3, 9], n_trials)
    trials["valid_error"] = trials.block.map({"v1": 0.1, "v2": 0.4, "next": 0.8}) + rng.normal(0, 0.02, n_trials)
    found = permutation_importances(trials, "valid_error")
    assert found is not None
    assert found.table.name[0] == "block"
    assert "activation" not in set(found.table.name), "it is the same in all trials"
    assert found.table.importance[0] > 10 * found.table.importance[1:].abs().max()
    assert found.correlation > 0.8
    assert permutation_importances(trials.head(19), "valid_error") is None


def test_networks_that_were_drawn_again_are_told_where_there_are_any(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    trials_csv = tmp_path / "results" / STUDY / "search/trials.csv"
    trials = pd.read_csv(trials_csv)
    study = Study(tmp_path / "results", STUDY, tmp_path / "report.html")
    assert list(_redrawn(study)) == [], "of an earlier version, without the columns"
    trials["n_redrawn"], trials["redrawn_multiply_adds"] = 0, 0
    trials.to_csv(trials_csv, index=False)
    assert list(_redrawn(study)) == []
    trials.loc[[0, 3], ["n_redrawn", "redrawn_multiply_adds"]] = [[1, 2_000_000], [2, 7_000_000]]
    trials.to_csv(trials_csv, index=False)
    (block,) = _redrawn(Study(tmp_path / "results", STUDY, tmp_path / "report.html"))
    assert f"3 of {len(trials) + 3} proposals were beyond search.limits" in block.text
    assert "3e+06 multiply-adds per image" in block.text


def test_importances_are_scored_by_what_the_forest_predicts_bit_for_bit() -> None:
    random = np.random.default_rng(0)
    inputs, outcomes = random.normal(size=(60, 4)), random.normal(size=60)
    forest = RandomForestRegressor(20, random_state=0).fit(inputs, outcomes)
    assert np.array_equal(_forest_predictions(forest, inputs), forest.predict(inputs))


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_an_axis_holds_its_values_and_labels_them(values: list[float]) -> None:
    axis = value_axis(values)
    low, high = axis["range"]
    scaled = np.log10(values) if axis.get("type") == "log" else np.array(values)
    assert (low <= scaled).all() and (scaled <= high).all()
    if axis.get("type") == "log":
        assert 1 <= len(axis["tickvals"]) <= 13
        assert axis["tickvals"] == log_ticks(10**low, 10**high)
        assert [float(text.replace(",", "")) for text in axis["ticktext"]] == pytest.approx(axis["tickvals"])


def test_wrong_answers_are_shown_with_their_pictures_and_votes(page: Path, results: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for budget in BUDGETS:
        members = json.loads((results / STUDY / f"selection/budget-{budget}.json").read_text())["members"]
        shown = re.search(rf'<div class="tabled gallery" data-budget="[^"]*{budget}[^"]*">.*?</ul>', text, re.DOTALL)[0]
        n_shown = shown.count("<li>")
        assert 0 < n_shown <= 12
        assert shown.count('src="data:image/png;base64,') == n_shown
        assert all(shown.count(f">{member}<") == n_shown for member in members)


def test_pictures_of_another_dataset_are_not_shown(copied: Path) -> None:
    with h5py.File(copied / "datasets" / "digits.h5", "a") as file:
        file.attrs["checksum"] = "cd" * 32
    text = made(copied)
    assert "the images shown would be others than those predicted" in missing(text)
    assert 'alt="Test image' not in text and "surest and wrong" in text
    assert plots(text) == EVERY_PLOT


def test_the_pictures_are_of_the_dataset_that_was_predicted_whatever_its_file_is_called(copied: Path) -> None:
    folder = copied / "datasets"
    shutil.copy(folder / "digits.h5", folder / "renamed.h5")
    with h5py.File(folder / "digits.h5", "a") as file:
        file.attrs["checksum"] = "cd" * 32
    assert 'alt="Test image' in made(copied)


def test_every_budget_is_held_against_the_baseline_and_a_study_without_one_does_without(copied: Path) -> None:
    text = unescape(made(copied))
    assert text.count("Against the baseline, SVC(C=10, gamma='scale') on the pixels: test error ") == len(BUDGETS)
    baseline = copied / STUDY / "library" / "baseline.json"
    told = json.loads(baseline.read_text(encoding="utf-8"))
    baseline.write_text(json.dumps({**told, "n_fitted_images": 90}), encoding="utf-8")
    assert "The baseline learned from 90 of 900 training images." in made(copied)
    baseline.write_text(json.dumps({**told, "turned_off": True, "classifier": None}), encoding="utf-8")
    assert "baseline" not in unescape(made(copied)).split('id="mistakes"')[0].split('id="decision"')[1]
    baseline.unlink()
    assert plots(made(copied)) == EVERY_PLOT


def test_the_studys_own_metric_is_in_every_budgets_headline(copied: Path) -> None:
    config = copied / "run_config.yaml"
    assert "test 1 − macro F1" not in made(copied)
    config.write_text(config.read_text(encoding="utf-8").replace("metric: error", "metric: macro_f1_error"))
    text = made(copied)
    for budget in BUDGETS:
        value = json.loads((copied / STUDY / f"selection/budget-{budget}.json").read_text())["test"]["macro_f1_error"]
        assert re.search(rf"test 1 − macro F1</dt><dd>{value * 100:.2f}\s%", text)


def test_a_disturbed_measurement_is_told_beside_its_budget(copied: Path) -> None:
    path = copied / STUDY / "allocation" / f"budget-{BUDGETS[0]}" / "devices-2.json"
    allocation = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**allocation, "other_work_percent": 77.0}), encoding="utf-8")
    assert made(copied).count("The speed was disturbed: other processes used 77 % of a core.") == 1


def test_the_same_members_at_other_speeds_are_told_beside_both_budgets(copied: Path) -> None:
    for budget, speed in zip(BUDGETS, (212, 437, 900), strict=True):
        chosen = copied / STUDY / "selection" / f"budget-{budget}.json"
        selection = json.loads(chosen.read_text(encoding="utf-8"))
        first = json.loads((copied / STUDY / f"selection/budget-{BUDGETS[0]}.json").read_text(encoding="utf-8"))
        chosen.write_text(json.dumps({**selection, "members": first["members"]}), encoding="utf-8")
        path = copied / STUDY / "allocation" / f"budget-{budget}" / "devices-2.json"
        allocation = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**allocation, "images_per_second": speed}), encoding="utf-8")
    assert made(copied).count("The same members were measured at 212 and at 900 images/s.") == len(BUDGETS)


def test_models_of_a_study_of_several_families_say_which_they_are_of(copied: Path) -> None:
    assert "<th>family</th>" not in made(copied)
    trials_csv = copied / STUDY / "search/trials.csv"
    trials = pd.read_csv(trials_csv)
    families = np.where(trials.slot % 2, "resnet", "small_cnn")
    trials.assign(family=families).to_csv(trials_csv, index=False)
    table = made(copied).split("<caption><span>Models by rank")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    assert "family" in rows[0]
    told = {cells[0]: cells[1] for cells in (re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows[1:])}
    expected = dict(zip(trials.model, families, strict=True))
    assert told and told == {model: expected[model] for model in told}


def test_cascades_are_shown_where_the_config_asks_for_them(copied: Path) -> None:
    assert "Stopping early" not in made(copied)
    config = yaml.safe_load((copied / "run_config.yaml").read_text())
    config["selection"]["cascade"]["max_changed"] = 0.01
    (copied / "run_config.yaml").write_text(yaml.safe_dump(config))
    page = made(copied)
    assert "cascade-1x.json" in page, "what is missing is told"
    test = {"n_images": 200, "shares": [1.0, 0.3], "n_changed": 1, "n_wrong": 10, "n_lost": 1, "n_gained": 0}
    test |= {"error": 0.05, "full_error": 0.045, "mean_cost_seconds": 1.3}
    guarantee = {"n_images": 500, "n_changed": 1, "upper_bound": 0.0095}
    content = {"members": ["trial-00001", "trial-00002"], "thresholds": [0.9], "max_changed": 0.01}
    content |= {"guarantee": guarantee, "cost_seconds": 2.0, "mean_cost_seconds": 1.2, "test": test}
    for budget in BUDGETS:
        (copied / STUDY / f"selection/cascade-{budget}.json").write_text(json.dumps(content))
    page = unescape(made(copied))
    assert "at most 1 % of the images get another class" in page
    section = page.split("<caption><span>Cascades by budget")[1].split("</table>")[0]
    section = section.replace("\N{NO-BREAK SPACE}", " ")
    for told in ("trial-00002 30.0", "0.900", "1.3 s", "2 s", "1 of 500", "0.950", "1 of 200", "+0.50 (−"):
        assert told in section
