"""Whatever the images and the machine, the config that is written loads, and holds what the rules say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.config import DeviceConfig, load_config
from ensembleflow.errors import ConfigError
from ensembleflow.first_config.choices import choose_dataset, choose_space
from ensembleflow.first_config.config_text import config_text
from ensembleflow.first_config.fingerprint import Fingerprint
from ensembleflow.first_config.found_text import advice_lines, found_lines
from ensembleflow.first_config.length import LEAST_TRIALS, FirstConfig, choose_length, fit_length
from ensembleflow.first_config.machine import Machine, _of_cores, slurm_cluster
from ensembleflow.first_config.network_times import MeasuredNetwork, NetworkTimes, three_networks
from ensembleflow.models.gpu import Gpu

DEFAULT = Path(__file__).resolve().parents[2] / "config/config.yaml"
TWO_CORES = _of_cores([(0,), (1,)], [], 8000)
A_GPU = _of_cores([(n,) for n in range(8)], [Gpu("GPU-1", "A100", 40_000)], 64_000)
TIMES = NetworkTimes(
    5.0, (MeasuredNetwork(2_000_000, 2.0, 0.001, 0.0003, 0.0003), MeasuredNetwork(9_000_000, 3.0, 0.003, 0.001, 0.001))
)


def found(counts: dict[str, int] | None = None, **values: object) -> Fingerprint:
    counts = counts or {"a": 500, "b": 400}
    n = sum(counts.values())
    common = {
        "path": "leaves",
        "source": "image_folder",
        "parts": {},
        "n_groups": None,
        "n_opened": n,
        "n_decoded": n,
        "sides": (28, 28, 28),
        "widths_and_heights": ((28, 28), (28, 28)),
        "stretched": 1.0,
        "kinds": {"RGB": n},
        "has_colour": True,
        "image_size": 28,
    }
    return Fingerprint(class_counts=counts, **{**common, **values})


def written(first: FirstConfig, tmp_path: Path):
    file = tmp_path / "first.yaml"
    file.write_text(config_text(first.choices, ["head", "  command"]), encoding="utf-8")
    return load_config([DEFAULT, file])


def chosen(fingerprint: Fingerprint, machine: Machine = TWO_CORES, times: NetworkTimes | None = TIMES) -> FirstConfig:
    return choose_length(fingerprint, choose_dataset(fingerprint), choose_space(fingerprint, machine), machine, times)


@st.composite
def fingerprints(draw: st.DrawFn) -> Fingerprint:
    counts = draw(st.dictionaries(st.text(max_size=5), st.integers(1, 100_000), min_size=2, max_size=120))
    n = sum(counts.values())
    low, median, high = sorted(draw(st.lists(st.integers(1, 9000), min_size=3, max_size=3)))
    parts = draw(st.sampled_from([(), ("train", "test"), ("train", "valid"), ("train", "valid", "test")]))
    sizes = dict.fromkeys(parts, max(1, n // 5))
    return found(
        counts,
        path=draw(st.sampled_from(["leaves", "my leaves", "/data/ä: #1", "a/b.csv", "-x", "yes"])),
        source=draw(st.sampled_from(["image_folder", "table"])),
        parts={**sizes, "train": n - max(1, n // 5) * (len(parts) - 1)} if parts else {},
        n_groups=draw(st.none() | st.integers(1, 100)),
        sides=(low, median, high),
        widths_and_heights=((low, low), (high, high)),
        stretched=draw(st.floats(1, 20)),
        has_colour=draw(st.booleans()),
        image_size=draw(st.integers(8, 1024)),
        unreadable=tuple(draw(st.lists(st.text(max_size=5), max_size=12))),
        n_copies=draw(st.integers(0, 5)),
        n_contradicting=draw(st.integers(0, 5)),
        copies=("a = b",),
    )


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    if draw(st.booleans()):
        return slurm_cluster(draw(st.integers(1, 2000)), draw(st.integers(0, 1)))
    cores = [(2 * n, 2 * n + 1)[: draw(st.integers(1, 2))] for n in range(draw(st.integers(1, 20)))]
    gpus = [Gpu("GPU-1", "A100", draw(st.integers(100, 90_000)))][: draw(st.integers(0, 1))]
    return _of_cores(cores, gpus, draw(st.integers(0, 500_000)))


@st.composite
def times_of_networks(draw: st.DrawFn) -> NetworkTimes:
    second = st.floats(1e-6, 3)
    sizes = sorted(draw(st.sets(st.integers(1, 10**10), min_size=1, max_size=3)))
    return NetworkTimes(draw(second), tuple(MeasuredNetwork(size, *(draw(second) for _ in range(4))) for size in sizes))


@settings(max_examples=40)
@given(fingerprint=fingerprints(), machine=machines())
def test_any_fingerprint_gives_a_config_that_loads(
    fingerprint: Fingerprint, machine: Machine, tmp_path_factory
) -> None:
    first = chosen(fingerprint, machine, None)
    config = written(first, tmp_path_factory.mktemp("any"))
    assert config.model_dump(exclude={"dataset"}) == first.config.model_dump(exclude={"dataset"})
    assert config.dataset.path == fingerprint.path
    assert first.expected is None
    assert all(choice.reason for choice in first.choices)
    assert found_lines(fingerprint)
    advice_lines(fingerprint, choose_dataset(fingerprint))


@settings(max_examples=5)
@given(machine=machines(), times=times_of_networks())
def test_any_measured_times_give_a_config_that_loads(machine: Machine, times: NetworkTimes, tmp_path_factory) -> None:
    first = chosen(found(), machine, times)
    written(first, tmp_path_factory.mktemp("times"))
    assert first.expected is not None
    assert first.expected.search_seconds > 0


def test_every_key_stands_below_its_reason() -> None:
    lines = config_text(chosen(found()).choices, ["head"]).splitlines()
    for number, line in enumerate(lines):
        key, _, value = line.strip().partition(":")
        if value and not line.strip().startswith(("#", "-")):
            assert lines[number - 1].strip().startswith("#"), key
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    ("counts", "metric", "weights"),
    [({"a": 300, "b": 101}, "cross_entropy", None), ({"a": 300, "b": 100}, "macro_f1_error", "balanced")],
)
def test_unbalanced_classes_count_alike(counts: dict[str, int], metric: str, weights: str | None) -> None:
    search = chosen(found(counts)).config.search
    assert (search.metric, search.class_weights) == (metric, weights)


@pytest.mark.parametrize(
    ("n_images", "fraction"), [(400, 0.2), (999, 0.2), (1797, 0.3), (2500, 0.2), (4000, 0.15), (60_000, 0.1)]
)
def test_validation_has_some_500_images(n_images: int, fraction: float) -> None:
    dataset = chosen(found({"a": n_images // 2, "b": n_images - n_images // 2})).config.dataset
    assert (dataset.valid_fraction, dataset.test_fraction) == (fraction, fraction)


def test_a_class_of_three_is_in_every_part() -> None:
    counts = {"a": 9000, "b": 3}
    assert chosen(found(counts)).config.dataset.valid_fraction == 0.2


@pytest.mark.parametrize(("n_images", "epochs"), [(500, 54), (6_000, 27), (60_000, 9)])
def test_fewer_images_are_seen_more_often(n_images: int, epochs: int) -> None:
    assert chosen(found({"a": n_images // 2, "b": n_images // 2})).config.search.max_epochs == epochs


def test_many_classes_are_judged_later() -> None:
    search = chosen(found({f"class {n}": 200 for n in range(60)})).config.search
    assert search.min_epochs == search.max_epochs // 3


def test_tiny_images_keep_the_defaults_space() -> None:
    space = chosen(found(image_size=8)).config.search.space
    assert (space.stem_filters.low, space.stem_filters.high) == (6, 12)


def test_short_trials_share_a_job_and_no_core_is_left_without_two() -> None:
    quick = NetworkTimes(5.0, (MeasuredNetwork(1, 1.0, 1e-6, 1e-6, 1e-6),))
    slow = NetworkTimes(5.0, (MeasuredNetwork(1, 1.0, 1.0, 0.1, 0.1),))
    assert chosen(found(), times=quick).config.search.trials_per_job == 6
    assert chosen(found(), times=slow).config.search.trials_per_job == 1


def test_slow_networks_are_measured_on_fewer_images() -> None:
    slow = NetworkTimes(5.0, (MeasuredNetwork(1, 1.0, 0.01, 0.004, 0.004),))
    config = chosen(found(), times=slow).config
    assert config.library.cost.n_images == config.allocation.bench_images == 500


def test_a_gpu_trains_predicts_and_is_a_device() -> None:
    config = chosen(found(), A_GPU).config
    assert config.resources.search.gpus == config.resources.library.gpus == config.resources.allocation.gpus == 1
    assert config.allocation.devices[0].gpu == 0


def test_a_cluster_gets_a_trial_for_each_job_and_a_time_limit() -> None:
    slow = NetworkTimes(5.0, (MeasuredNetwork(1, 1.0, 0.5, 0.1, 0.1),))
    first = chosen(found(), slurm_cluster(100, 1), slow)
    assert (first.config.search.n_trials, first.config.search.trials_per_job) == (400, 1)
    assert first.config.resources.search.gpus == 1
    assert first.expected is not None
    assert 60 * first.config.resources.search.runtime_minutes >= 2 * first.expected.longest_trial_seconds


def test_devices_of_a_machine_are_four_sets_of_cores_at_most() -> None:
    machine = _of_cores([(n,) for n in range(10)], [], 10_000)
    assert [each.cores for each in machine.devices] == [3, 3, 3, 1]
    assert machine.devices[0] == DeviceConfig(name="cpu0", cores=3, memory_mb=2000)
    assert machine.jobs == 10


def fitted(hours: float) -> FirstConfig:
    fingerprint = found()
    space = choose_space(fingerprint, TWO_CORES)
    return fit_length(fingerprint, choose_dataset(fingerprint), space, TWO_CORES, TIMES, hours)


@pytest.mark.parametrize("hours", [0.3, 3])
def test_what_is_chosen_for_some_hours_is_expected_to_fit(hours: float) -> None:
    first = fitted(hours)
    assert first.expected is not None
    assert first.expected.seconds <= 3600 * hours
    assert first.config.search.n_trials >= LEAST_TRIALS


def test_more_hours_buy_epochs_first_then_trials() -> None:
    searches = [fitted(hours).config.search for hours in (0.3, 1, 4)]
    assert [each.max_epochs for each in searches] == sorted(each.max_epochs for each in searches)
    assert [each.n_trials for each in searches[1:]] == sorted(each.n_trials for each in searches[1:])
    assert searches[-1].n_trials > searches[1].n_trials


def test_too_few_hours_are_refused_with_what_would_do() -> None:
    with pytest.raises(ConfigError, match="the hours are too few") as refused:
        fitted(0.01)
    least = float(refused.value.expected.split()[0])
    assert fitted(least).config.search.n_trials >= LEAST_TRIALS


def test_the_three_networks_are_the_spaces_ends_and_middle() -> None:
    low, middle, high = three_networks(chosen(found()).config.search)
    assert (low.stem_filters, middle.stem_filters, high.stem_filters) == (12, 16, 20)
    assert low.batch_size == middle.batch_size == high.batch_size
    assert (low.block, high.block) == ("v1", "v2")


def test_a_time_lies_between_those_of_the_measured_networks() -> None:
    assert TIMES.of("train_seconds", 0) == 0.001
    assert TIMES.of("train_seconds", 5_500_000) == pytest.approx(0.002)
    assert TIMES.of("train_seconds", 10**9) == 0.003


def test_texts_of_any_kind_are_quoted() -> None:
    text = config_text(chosen(found(path="yes: #no")).choices, ["head"])
    assert yaml.safe_load(text)["dataset"]["path"] == "yes: #no"
