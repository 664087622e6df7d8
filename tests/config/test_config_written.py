"""Numbers and times of the config mean what a person reads, whatever YAML 1.1 would make of them."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ensembleflow.config import Config, budget_name, load_config
from ensembleflow.config.files import merged, read_command_line
from ensembleflow.config.times import minutes_of
from ensembleflow.errors import ConfigError

SCHEMA = Draft202012Validator(
    json.loads((Path(__file__).resolve().parents[2] / "workflow/schemas/config.schema.json").read_text())
)
WHERE = ["a file", "the command line"]


def nested(key, text):
    """A block as flow-style YAML, `{search: {n_trials: 8}}`."""
    for name in reversed(key.split(".")):
        text = f"{{{name}: {text}}}"
    return text


def config_of(tmp_path, key, text, given_in):
    if given_in == "a file":
        (tmp_path / "own.yaml").write_text(nested(key, text) + "\n", encoding="utf-8")
        return load_config([tmp_path / "own.yaml"])
    top, _, rest = key.partition(".")
    return load_config([], [f"{top}={nested(rest, text) if rest else text}"])


def value_of(config, key):
    for name in key.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize("given_in", WHERE)
@pytest.mark.parametrize(
    "written", ["010", "0x10", "0b11", "0o17", "1_000", "4:00:00", "1:30", "2026-01-01", "١٢", "12 13"]
)
@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("seed", "{}"),
        ("search.n_trials", "{}"),
        ("search.n_trials", '"{}"'),
        ("library.keep_fraction", "{}"),
        ("search.space.batch_size", "[{}, 100000]"),
        ("search.space.learning_rate", "{{low: {}, high: 100000}}"),
        ("allocation.batch_sizes", "[8, {}]"),
        ("dataset.synthetic.image_shape", "[32, {}, 3]"),
        ("selection.budgets", "[{}]"),
        ("resources.search.mem_mb", "{}"),
    ],
)
def test_a_number_in_other_than_decimal_digits_is_refused(tmp_path, key, form, written, given_in):
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, key, form.format(written), given_in)
    assert written in caught.value.found
    if given_in == "a file":
        assert caught.value.where.startswith(f"{tmp_path / 'own.yaml'}:1: {key}")


@pytest.mark.parametrize("given_in", WHERE)
@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("seed", "12", 12),
        ("search.n_trials", '"64"', 64),
        ("search.n_trials", "64.0", 64),
        ("library.keep_fraction", "5e-1", 0.5),
        ("selection.cost_weights", "[1e-5, 1E-3, .5]", [1e-5, 1e-3, 0.5]),
        ("selection.budgets", "[0.00005]", ["0.00005"]),
        ("selection.budgets", "[latency_p50_seconds=5e-4]", ["latency_p50_seconds=0.0005"]),
        ("selection.budgets", "[5e-4x]", ["0.0005x"]),
        ("selection.local_search", "true", True),
        ("dataset.image_size", "null", None),
        ("results_dir", "2026-01-01", "2026-01-01"),
    ],
)
def test_a_valid_value_means_the_same_in_a_file_and_on_the_command_line(tmp_path, key, written, value, given_in):
    assert value_of(config_of(tmp_path, key, written, given_in), key) == value


def test_small_ends_of_a_range_are_numbers(tmp_path):
    found = config_of(tmp_path, "search.space.learning_rate", "[1e-5, 1e-2]", "a file").search.space.learning_rate
    assert (found.low, found.high) == (1e-5, 1e-2)


TIMES = [
    ("30", 30),
    ("4:00:00", 240),
    ("2-00:00", 2880),
    ("2-00", 2880),
    ("1-12:30", 2190),
    ("1-00:00:01", 1441),
    ("30:00", 30),
    ("4:00", 4),
    ("0:30", 1),
    ("00:30:00", 30),
    ("08:00:00", 480),
    ("48:00:00", 2880),
]


@pytest.mark.parametrize("given_in", WHERE)
@pytest.mark.parametrize("quote", ["", '"'], ids=["plain", "quoted"])
@pytest.mark.parametrize(("written", "minutes"), TIMES)
def test_a_time_is_what_slurm_takes_it_for(tmp_path, written, minutes, quote, given_in):
    key = "resources.search.runtime_minutes"
    assert value_of(config_of(tmp_path, key, f"{quote}{written}{quote}", given_in), key) == minutes
    if given_in == "a file":
        values = {"resources": {"search": {"runtime_minutes": written}}}
        assert list(SCHEMA.iter_errors(values)) == []


@pytest.mark.parametrize(
    "written", ["0", "00:00", "-5", "010", "1_0", "4h", "4:00:00:00", "1-2-3", "1.5", "UNLIMITED", "4:-1"]
)
def test_what_is_no_time_or_none_at_all_is_refused(tmp_path, written):
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, "resources.search.runtime_minutes", written, "a file")
    assert "as Slurm writes it" in caught.value.expected


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_minutes_of_a_whole_time_are_its_seconds_rounded_up(days, hours, minutes, seconds):
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert minutes_of(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == -(-total // 60)


NUMBERS = st.decimals(min_value="1e-30", max_value="1e15", allow_nan=False)


@given(NUMBERS, st.sampled_from(["", "x"]), st.sampled_from(["", "latency_p50_seconds=", "parameter_bytes="]))
def test_budgets_as_numbers_are_written_anywhere_have_one_name_of_digits(number, unit, column):
    names = {budget_name(f"{column}{text}{unit}") for text in (f"{number:f}", f"{number:e}", str(number))}
    assert len(names) == 1
    name = names.pop()
    assert budget_name(name) == name
    assert float(name.rpartition("=")[2].removesuffix("x")) == float(number)
    assert "e" not in name.rpartition("=")[2]
    assert list(SCHEMA.iter_errors({"selection": {"budgets": [f"{column}{number:e}{unit}"]}})) == []


@pytest.mark.parametrize("value", ["1e-31", 1e-300, 5e-324, "1e31", 1e300, "1e-400"])
def test_a_budget_whose_name_no_file_could_have_is_refused(value):
    with pytest.raises(ValueError, match="must be"):
        budget_name(value)


def test_the_command_line_overrides_key_by_key_and_what_is_empty_is_null(tmp_path):
    (tmp_path / "own.yaml").write_text("search: {n_trials: 30, max_epochs: 5}\n")
    config = load_config([tmp_path / "own.yaml"], ["search={n_trials: 60}", "seed=2"])
    assert (config.search.n_trials, config.search.max_epochs, config.seed) == (60, 5, 2)
    assert read_command_line(["results_dir="]) == {"results_dir": None}


def is_a_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


# PyYAML writes the text 1e5 without quotes, and 1e5 is a number to us.
TEXTS = st.text(st.characters(codec="ascii")).filter(lambda text: not is_a_number(text))
PLAIN = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["seed", "search"]), PLAIN, max_size=2))
def test_what_python_writes_as_yaml_reads_back(tmp_path_factory, values):
    entries = [f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6)}" for key, value in values.items()]
    assert read_command_line(entries) == values == merged({}, values)


def test_json_indented_by_tabs_is_read_as_snakemake_reads_it(tmp_path):
    (tmp_path / "own.json").write_text('{\n\t"seed": 3\n}\n')
    assert load_config([tmp_path / "own.json"]) == Config(seed=3)


def test_a_file_in_another_encoding_names_the_line_and_the_way_out(tmp_path):
    (tmp_path / "own.yaml").write_bytes(b"seed: 1\ndataset: {path: Bl\xe4tter}\n")
    with pytest.raises(ConfigError) as caught:
        load_config([tmp_path / "own.yaml"])
    assert caught.value.where == f"{tmp_path / 'own.yaml'}:2"
    assert "0xe4" in caught.value.found
    assert "iconv" in caught.value.hint
