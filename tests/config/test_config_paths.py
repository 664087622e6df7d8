"""Every path of the config means what a shell would make of it, or is refused in words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.config import load_config, parse_config
from ensembleflow.config.files import read_command_line
from ensembleflow.config.keys import all_keys
from ensembleflow.config.paths import expanded, expansions
from ensembleflow.errors import ConfigError, StorageError
from ensembleflow.io.folder import require_writable

PATHS = ["results_dir", "dataset.path", "paper.autokeras_python"]
WRITTEN = {
    "~/out": "/homes/ann/out",
    "~": "/homes/ann",
    "$SCRATCH/out": "/scratch/ann/out",
    "${SCRATCH}/out": "/scratch/ann/out",
    "$SCRATCH": "/scratch/ann",
    "/data/$PROJECT/$PROJECT_2/out": "/data/leaves/second/out",
    "out/": "out",
    "out//deep///er/": "out/deep/er",
    "./out": "out",
    "a/../b": "a/../b",
    "//server/out": "/server/out",
    "a~b": "a~b",
    "with blank": "with blank",
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setenv("HOME", "/homes/ann")
    monkeypatch.setenv("SCRATCH", "/scratch/ann")
    monkeypatch.setenv("PROJECT", "leaves")
    monkeypatch.setenv("PROJECT_2", "second")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)


def nested(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def value_of(config, key):
    for name in key.split("."):
        config = getattr(config, name)
    return config


def test_the_paths_of_the_config_are_those_of_this_table():
    named = {key.name for key in all_keys() if {"path", "folder", "python", "dir"} & set(key.path[-1].split("_"))}
    assert named == set(PATHS)


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(("written", "meant"), WRITTEN.items())
def test_a_path_is_expanded_and_what_it_became_is_told(key, written, meant):
    values = nested(key, written)
    config = parse_config(values)
    assert value_of(config, key) == meant
    told = list(expansions(values, config))
    assert told == ([f"{key}: {written} is {meant}"] if meant != written and {"~", "$"} & set(written) else [])


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("$UNSET/out", "$UNSET"),
        ("${UNSET}/out", "${UNSET}"),
        ("$EMPTY/out", "$EMPTY"),
        ("~nobody_of_that_name/out", "~nobody_of_that_name"),
        ("a\nb", "line breaks"),
        ("a\0b", "control"),
    ],
)
def test_a_path_that_cannot_be_expanded_is_refused(key, written, says):
    with pytest.raises(ConfigError) as caught:
        parse_config(nested(key, written))
    assert key in caught.value.where
    assert says in caught.value.expected


@pytest.mark.parametrize("written", ["r{7}", "{study}", "a}", "{", "out/{x}/y"])
def test_braces_are_refused_where_snakemake_makes_names_of_outputs(written):
    with pytest.raises(ConfigError) as caught:
        parse_config({"results_dir": written})
    assert "braces" in caught.value.expected
    assert parse_config({"dataset": {"path": written}}).dataset.path == written


def test_the_folder_one_is_in_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for written in (".", "./"):
        assert parse_config({"results_dir": written}).results_dir == str(tmp_path)


def test_a_path_from_the_command_line_is_expanded_as_well():
    assert load_config([], ["results_dir=$SCRATCH/out"]).results_dir == "/scratch/ann/out"
    assert list(expansions(read_command_line(["results_dir=~"]), load_config([]))) == []


@given(st.text(st.characters(exclude_characters="~$", exclude_categories=("Cc", "Cs")), min_size=1))
def test_any_other_path_names_the_same_file_and_stays_as_it_is_when_read_again(text):
    path = expanded(text)
    assert expanded(path) == path
    assert Path(path) == Path(text) or text.startswith("//")
    assert "//" not in path
    assert path == "/" or not path.endswith("/")


def test_a_results_folder_that_can_be_made_is_taken(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    for name in ("there", "link", "link/new", "new/deeper"):
        require_writable(tmp_path / name)


@pytest.mark.parametrize("below", ["", "/deeper/still"])
@pytest.mark.parametrize("target", ["/nonexistent/x", "nowhere", "loop", "again"])
def test_a_link_that_leads_nowhere_is_refused_by_name(tmp_path, target, below):
    (tmp_path / "loop").symlink_to(target)
    (tmp_path / "again").symlink_to("gone")
    with pytest.raises(StorageError) as caught:
        require_writable(f"{tmp_path / 'loop'}{below}")
    assert caught.value.found == f"{tmp_path / 'loop'} is a link to {target}, which does not exist"
    assert not (tmp_path / "gone").exists()
