"""The config is refused with file, line, key and hint, and its canonical text means what it says."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.config import Config, budget_name, canonical_json, load_config, n_kept, parse_config
from ensembleflow.config.keys import all_keys, find_key
from ensembleflow.config.renamed import RENAMED
from ensembleflow.errors import ConfigError


def refused(tmp_path: Path, text: str) -> ConfigError:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config([path])
    return caught.value


def nested(key: str, value: object) -> dict:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


WRONG_VALUES = {
    "seed": [-1, "one", 1.5, None, True],
    "results_dir": ["", 3],
    "dataset.name": ["a b", "../up", 3],
    "dataset.source": ["imagenet", 4],
    "dataset.path": [3],
    "dataset.image_size": [4, 5000, "big"],
    "dataset.valid_fraction": [0, 1, -0.1, "some", float("nan")],
    "dataset.split_seed": [-1],
    "search.algorithm": ["grid"],
    "search.n_trials": [0, 2.5, "many", True],
    "search.trials_per_job": [0],
    "search.max_epochs": [0],
    "search.reduction_factor": [1],
    "search.metric": ["accuracy"],
    "search.min_epochs": [0, 1.5],
    "search.average": ["ema", True, None],
    "search.schedule": [[], "step", ["cosine", "cosine"]],
    "search.class_weights": ["equal", {"cat": 0}, {"cat": "much"}, [1, 2], 3],
    "search.space.learning_rate": [
        [0.1, 0.01],
        [0.1],
        [0.1, 0.2, 0.3],
        0.1,
        "fast",
        [0.1, float("inf")],
        {"low": 0.1},
        {"low": 0.1, "high": 0.01},
        {"low": 0.1, "high": 0.2, "logarithmic": True},
        {"low": 0.1, "high": 0.2, "log": 1},
        {"low": True, "high": 2},
    ],
    "search.space.l2": [{"low": 0, "high": 0.1, "log": True}],
    "search.space.batch_size": [[1.5, 3], ["a", 3], [True, 8], {"low": 8, "high": 16.5, "log": True}],
    "search.space.block": [[], ["v3"], ["v1", "v1"], "v1"],
    "library.keep_fraction": [0, 1.1],
    "library.cost.repeats": [1],
    "selection.budgets": [[], [0], ["x"], ["4y"], ["-1x"], [-3], "4x", ["4x", "4.0x"], [True]],
    "selection.cost_weights": [[], [-0.1], [1.1], [0.1, 0.10]],
    "selection.loss": ["f1"],
    "allocation.batch_sizes": [[0], [8, 8]],
    "allocation.engines": [["torch"], [], ["openvino", "openvino"]],
    "allocation.objective": ["latency"],
    "allocation.max_replicas": [0],
    "allocation.bench": ["guessed"],
    "report.dpi": [10],
    "resources.search.mem_mb": [1],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG_VALUES.items() for value in values])
def test_wrong_value_is_refused_with_line_key_found_expected_and_hint(tmp_path, key, value):
    text = yaml.safe_dump({"report": {"figure_width_inches": 7}} | nested(key, value))
    error = refused(tmp_path, text)
    file_and_line, told_key = error.where.split(": ")
    path, line = file_and_line.rsplit(":", 1)
    assert path == str(tmp_path / "own.yaml")
    last = key.rsplit(".", maxsplit=1)[-1]
    stands_at = next(i for i, content in enumerate(text.splitlines(), 1) if content.strip().startswith(last))
    assert int(line) >= stands_at
    assert told_key.startswith(key)
    assert error.found
    assert error.expected
    assert error.hint
    for wording in ("Input should", "unable to parse", "Value error", "validation error", "Tuple", "None"):
        assert wording not in str(error)


def test_line_is_that_of_the_key(tmp_path):
    error = refused(tmp_path, "seed: 1\nsearch:\n  # a comment\n  n_trials: many\n")
    assert error.where == f"{tmp_path / 'own.yaml'}:4: search.n_trials"
    assert error.found == '"many"'
    assert error.expected == "a whole number ≥ 1"


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("serch: {}", "serch", "did you mean `search`?"),
        ("search: {n_trails: 4}", "search.n_trails", "did you mean `n_trials`?"),
        ("n_trials: 4", "n_trials", "did you mean `search.n_trials`?"),
        ("search: {space: {lerning_rate: [0, 1]}}", "search.space.lerning_rate", "did you mean `learning_rate`?"),
        ("allocation: {devices: [{name: a, core: 1}]}", "allocation.devices.0.core", "did you mean `cores`?"),
        ("search: {metric: eror}", "search.metric", "did you mean `error`?"),
        ("search: {zzz: 1}", "search.zzz", "every key is described in config/README.md"),
        ("report: {1: 2}", "report.1", "every key is described in config/README.md"),
    ],
)
def test_slip_of_the_hand_is_answered_with_the_nearest_known_word(tmp_path, text, where, hint):
    error = refused(tmp_path, text)
    assert error.where.endswith(f"own.yaml:1: {where}")
    assert error.hint == hint


COMBINATIONS = [
    ("dataset: {source: cifar100}", "dataset.path, dataset.source"),
    ("dataset: {source: image_folder, image_size: 32}", "dataset.path, dataset.source"),
    ("dataset: {source: image_folder, path: data}", "dataset.image_size, dataset.source"),
    ("dataset: {valid_fraction: 0.5, test_fraction: 0.5}", "dataset.valid_fraction, dataset.test_fraction"),
    ("search: {n_trials: 3, trials_per_job: 4}", "search.n_trials, search.trials_per_job"),
    ("search: {n_trials: 7}", "search.n_trials, search.trials_per_job"),
    ("search: {min_epochs: 40}", "search.min_epochs, search.max_epochs"),
    ("search: {n_trials: 2, trials_per_job: 1}", "library.keep_fraction, search.n_trials"),
    (
        "{search: {trials_per_job: 1}, resources: {search: {concurrent_trials: 4}}}",
        "resources.search.concurrent_trials, search.trials_per_job",
    ),
    ("search: {space: {learning_rate: [0, 0.1]}}", "search.space.learning_rate"),
    ("search: {space: {l2: [-0.1, 0.1]}}", "search.space.l2"),
    ("search: {space: {batch_size: [0, 8]}}", "search.space.batch_size"),
    ("search: {space: {blocks_stage_3: [0, 1]}}", "search.space.blocks_stage_3"),
    ("search: {space: {max_zoom: [0, 1]}}", "search.space.max_zoom"),
    ("search: {space: {horizontal_flips: [0, 1.5]}}", "search.space.horizontal_flips"),
    ("search: {space: {cutout: [0.1, 1.1]}}", "search.space.cutout"),
    ("search: {space: {mixup: [-0.1, 0.1]}}", "search.space.mixup"),
    (
        "{selection: {loss: brier}, library: {predictions: {every_class: false}}}",
        "selection.loss, library.predictions.every_class",
    ),
    (
        "resources: {selection: {gpus: 1, cluster: processes}}",
        "resources.selection.cluster, resources.selection.gpus",
    ),
    ("allocation: {device_counts: [3]}", "allocation.device_counts, allocation.devices"),
    ("allocation: {devices: [{name: a}, {name: a}]}", "allocation.devices"),
    (
        "allocation: {objective: latency_p99, latency_requests: 0}",
        "allocation.latency_requests, allocation.objective",
    ),
    ("allocation: {devices: [{name: a, speed: 2}], device_counts: [1]}", "allocation.devices, allocation.bench"),
    (
        "{allocation: {devices: [{name: a, gpu: 0}], device_counts: [1]}, resources: {allocation: {gpus: 0}}}",
        "allocation.devices, resources.allocation.gpus",
    ),
    (
        "{library: {cost: {device: gpu}}, resources: {library: {gpus: 0}}}",
        "library.cost.device, resources.library.gpus",
    ),
    ("resources: {library: {gpus: 1}}", "library.cost.device, resources.library.gpus"),
]


@pytest.mark.parametrize(("text", "keys"), COMBINATIONS)
def test_impossible_combination_names_all_its_keys_and_their_values(tmp_path, text, keys):
    error = refused(tmp_path, text)
    assert error.where == f"{tmp_path / 'own.yaml'}:1: {keys}"
    for key in keys.split(", "):
        assert key in error.found
        assert f"`{key}`" in error.hint
    assert error.expected


def test_combination_names_the_lines_of_each_file_that_sets_a_part(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("search:\n  n_trials: 20\n")
    second.write_text("search:\n  trials_per_job: 30\n")
    with pytest.raises(ConfigError) as caught:
        load_config([first, second])
    assert caught.value.where == f"{first}:2, {second}:2: search.n_trials, search.trials_per_job"
    assert caught.value.found == "search.n_trials 20, search.trials_per_job 30"


@pytest.mark.parametrize(
    ("former", "new", "value"),
    [("weights", "cost_weights", "[0.1]"), ("certificate_nodes", "branch_and_bound_nodes", "0")],
)
def test_a_renamed_key_is_told_with_its_line_and_both_names(tmp_path, former, new, value):
    error = refused(tmp_path, f"seed: 1\nselection:\n  {former}: {value}\n")
    assert error.what == "a config key has a new name"
    assert error.where == f"{tmp_path / 'own.yaml'}:3: selection.{former}"
    assert f"`selection.{former}`" in error.found
    assert error.expected == f"`selection.{new}`"
    assert f"write {new} in place of {former}" in error.hint


def test_several_renamed_keys_are_told_at_once_and_so_are_other_faults_beside_them(tmp_path):
    both = "selection:\n  weights: [0.1]\n  certificate_nodes: 0\n"
    error = refused(tmp_path, both)
    assert error.what == "config keys have new names"
    for line, name in ((2, "cost_weights"), (3, "branch_and_bound_nodes")):
        assert f":{line}: " in error.where and f"expected `selection.{name}`" in error.where
    error = refused(tmp_path, f"{both}seed: -1\n")
    assert error.what == "the config is refused for 3 reasons"
    assert "expected `selection.cost_weights`" in error.where and ":4: seed" in error.where


def test_a_renamed_key_of_the_command_line_is_not_blamed_on_a_file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("selection: {loss: error}\n")
    with pytest.raises(ConfigError) as caught:
        load_config([path], ["selection={weights: [0.1]}"])
    assert caught.value.where == "command line (--config): selection.weights"


def test_a_former_name_leads_to_a_key_that_there_is():
    for former, new in RENAMED.items():
        assert find_key(former) is None
        assert find_key(new) is not None


def test_all_faults_are_told_at_once(tmp_path):
    error = refused(tmp_path, "seed: -1\nsearch:\n  n_trials: 0\nreport:\n  dpi: 1\n  colour: red\n")
    assert "4 reasons" in error.what
    for place in (":1: seed", ":3: search.n_trials", ":5: report.dpi", ":6: report.colour"):
        assert place in error.where
    assert error.where.count("expected") == 4


def test_value_from_the_command_line_is_not_blamed_on_a_file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("seed: 4\n")
    for values in ({"seed": -1}, {"seed": 4, "report": {"dpi": 1}}):
        with pytest.raises(ConfigError) as caught:
            parse_config(values, [path])
        assert caught.value.where.startswith("command line (--config): ")


@pytest.mark.parametrize(
    "text", ["seed: 1\nseed: 1\n", "report:\n  dpi: 80\n  dpi: 90\n", "report: {dpi: 80, dpi: 90}\n"]
)
def test_key_set_twice_is_refused(tmp_path, text):
    error = refused(tmp_path, text)
    assert "twice" in error.what
    assert error.where.startswith(f"{tmp_path / 'own.yaml'}:{text.count(chr(10))}: ")


@pytest.mark.parametrize("text", ["search: [1", "a: b: c", "\tseed: 1", "- 1\n- 2\n", "seed", "&a [*a]"])
def test_what_is_no_mapping_of_keys_is_refused(tmp_path, text):
    error = refused(tmp_path, text)
    assert str(tmp_path / "own.yaml") in error.where
    assert error.found
    assert error.expected


def test_binary_file_folder_and_missing_file_are_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    for name in ("binary.yaml", "", "nowhere.yaml"):
        with pytest.raises(ConfigError) as caught:
            load_config([tmp_path / name])
        assert str(tmp_path) in caught.value.where


def test_empty_file_and_no_file_give_the_default(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config([tmp_path / "empty.yaml"]) == load_config([]) == Config()


def test_later_file_overrides_key_by_key_and_lists_as_a_whole(tmp_path):
    (tmp_path / "a.yaml").write_text("search: {n_trials: 30, max_epochs: 5}\nselection: {budgets: [1, 2]}\n")
    (tmp_path / "b.yaml").write_text("search: {n_trials: 60}\nselection: {budgets: [3]}\n")
    config = load_config([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert (config.search.n_trials, config.search.max_epochs) == (60, 5)
    assert config.selection.budgets == ["3"]


def test_study_is_named_after_dataset_algorithm_and_seed():
    assert Config(seed=3, search={"algorithm": "random"}).study == "digits-random-s3"


@pytest.mark.parametrize(
    ("value", "name"),
    [(320, "320"), (320.0, "320"), ("4x", "4x"), ("4.0X", "4x"), (" 0.50x", "0.5x"), (".5", "0.5"), (0.1, "0.1")],
)
def test_budget_has_one_name(value, name):
    assert budget_name(value) == name


@given(st.decimals(min_value="0.000001", max_value="1e15", allow_nan=False), st.sampled_from(["", "x"]))
def test_budget_name_of_a_budget_name_is_itself(number, unit):
    name = budget_name(f"{number:f}{unit}")
    assert budget_name(name) == name
    assert float(name.removesuffix("x")) == float(number)
    assert "e" not in name


@given(st.integers(1, 3000), st.floats(0.001, 1))
def test_kept_share_is_the_nearest_whole_number_and_never_more_than_all(n_models, keep_fraction):
    assert abs(n_kept(n_models, keep_fraction) - n_models * keep_fraction) <= 0.5 + 1e-9
    assert n_kept(n_models, keep_fraction) <= n_models


# The canonical text: rules carry it, and Snakemake reruns a stage when it changes.

SCALARS = st.one_of(
    st.none(), st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(st.text(min_size=1, max_size=5), VALUES, max_size=5)


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(each) for each in value] if isinstance(value, list) else value


def with_floats(value):
    if isinstance(value, dict):
        return {key: with_floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [with_floats(each) for each in value]
    return float(value) if isinstance(value, int) else value


@given(MAPPINGS)
def test_key_order_and_the_way_a_number_is_written_do_not_matter(values):
    assert canonical_json(reordered(values)) == canonical_json(values) == canonical_json(with_floats(values))


@given(MAPPINGS, MAPPINGS)
def test_equal_texts_mean_equal_values(one, other):
    assert (canonical_json(one) == canonical_json(other)) == (one == other)


@given(MAPPINGS)
def test_text_reads_back_as_the_values(values):
    assert json.loads(canonical_json(values)) == values


@given(MAPPINGS, st.data())
def test_swapping_two_different_values_gives_another_text(values, data):
    if len(values) < 2:
        return
    a, b = data.draw(st.lists(st.sampled_from(sorted(values)), min_size=2, max_size=2, unique=True))
    swapped = {**values, a: values[b], b: values[a]}
    assert (canonical_json(swapped) == canonical_json(values)) == (values[a] == values[b])


@given(st.sets(st.sampled_from([key.path for key in all_keys() if key.block is None and "devices" not in key.path])))
def test_writing_defaults_out_does_not_matter(paths):
    defaults = json.loads(Config().model_dump_json())
    chosen: dict = {}
    for path in paths:
        block, values = chosen, defaults
        for name in path[:-1]:
            block, values = block.setdefault(name, {}), values[name]
        block[path[-1]] = copy.deepcopy(values[path[-1]])
    assert canonical_json(parse_config(chosen)) == canonical_json(Config())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"keep_fraction": 1}, {"keep_fraction": 1.0}),
        ({"keep_fraction": "0.5"}, {"keep_fraction": 0.5}),
        ({"cost": {"threads": 4, "repeats": 7}}, {"cost": {"repeats": 7.0, "threads": 4.0}}),
    ],
)
def test_block_has_one_text_for_one_meaning(one, other):
    assert canonical_json(Config(library=one).library) == canonical_json(Config(library=other).library)


def test_swapping_two_scalars_of_a_block_gives_another_text():
    one, other = ({"cost": {"repeats": a, "warmup_repeats": b}} for a, b in ((5, 3), (3, 5)))
    assert canonical_json(Config(library=one).library) != canonical_json(Config(library=other).library)


def test_extra_values_are_part_of_the_text():
    block = Config().library
    assert canonical_json(block, metric="error") != canonical_json(block, metric="brier")


def test_config_text_reads_back_as_the_same_config():
    config = Config(seed=2, selection={"budgets": [0.5, "3x"]})
    assert parse_config(json.loads(canonical_json(config))) == config


def test_key_is_found_by_its_path():
    key = find_key(("search", "space", "l2"))
    assert key is not None
    assert key.name == "search.space.l2"
    assert key.takes == "a range of numbers: `[lowest, highest]` or `{low: lowest, high: highest, log: true}`"
    assert find_key(("search", "nothing")) is None


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ([0.001, 0.01], [0.001, 0.01]),
        ({"low": 0.001, "high": 0.01}, [0.001, 0.01]),
        ({"low": 0.001, "high": 0.01, "log": False}, [0.001, 0.01]),
        ({"high": 0.01, "log": True, "low": 0.001}, {"low": 0.001, "high": 0.01, "log": True}),
    ],
)
def test_a_range_has_one_text_however_it_is_written(written, canonical):
    search = parse_config({"search": {"space": {"learning_rate": written}}}).search
    assert json.loads(canonical_json(search))["space"]["learning_rate"] == canonical
    assert search == parse_config({"search": search.model_dump(mode="json")}).search


def test_one_schedule_may_stand_alone_and_several_are_a_list():
    assert parse_config({"search": {"schedule": "cosine"}}).search.schedule == ["cosine"]
    both = parse_config({"search": {"schedule": ["constant", "cosine"]}}).search
    assert both.schedule == ["constant", "cosine"]


FAMILIES = {
    "networks/mine": "or a Python file's path",
    "networks/resnet.py": "not that of a family that comes along",
    "networks/9.py": "letters, digits and `_`",
    "[a/net.py, b/net.py]": "net is there twice",
    "[]": "non-empty",
    "resnet, family_space: {units: [1, 2]}": "of another family than `resnet`",
    "net.py, family_space: {units: 3}": "a range of two numbers",
    "net.py, family_space: {units: [1, 2, 3]}": "{choices: [8, 16]}",
    "net.py, family_space: {units: {choices: [1, 1]}}": "differ from each other",
    "net.py, family_space: {units: [2, 1]}": "whose lowest value comes first",
    "[resnet, net.py], family_space: {units: [1, 2]}": "`net: {…}`",
    "[resnet, net.py], family_space: {resnet: {l2: [0.1, 0.2]}}": "stand in `space`",
}


@pytest.mark.parametrize("value", FAMILIES)
def test_a_family_that_cannot_be_is_told(value: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"search: {{family: {value}}}\n")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert FAMILIES[value] in str(error.value)
    assert "search.family" in str(error.value)


def test_a_family_may_be_one_or_several_with_a_space_of_each() -> None:
    one = parse_config({"search": {"family": "a/net.py", "family_space": {"units": [1, 2]}}}).search
    assert one.family == ["a/net.py"]
    assert one.own_space("net") == {"units": [1, 2]}
    several = parse_config(
        {"search": {"family": ["resnet", "backbone", "a/net.py"], "family_space": {"net": {"units": [1, 2]}}}}
    ).search
    assert several.own_families == {"backbone": "backbone", "net": "a/net.py"}
    assert several.own_space("net") == {"units": [1, 2]}
    assert several.own_space("backbone") == {}
