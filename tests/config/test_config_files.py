"""The files under config/ and the schema agree with the config's classes."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from ensembleflow.config import Config, PaperConfig, Range, load_config, n_kept, parse_config
from ensembleflow.config.keys import all_keys, find_key
from ensembleflow.config.render import main, render_yaml, rendered_files

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "config" / "config.yaml"
OVERRIDES = ["cifar100", "microfossils", "tiny", "paper", "paper_tiny"]
TABLE_5 = {
    "learning_rate": (0.001, 0.01),
    "batch_size": (8, 48),
    "l2": (0, 0.1),
    "block": ["v1", "v2", "next"],
    "activation": ["tanh", "relu", "elu"],
    "stem_filters": (32, 128),
    "stage_filters": (32, 128),
    "blocks_stage_1": (1, 11),
    "blocks_stage_2": (1, 11),
    "blocks_stage_3": (1, 11),
    "blocks_stage_4": (1, 11),
    "max_zoom": (0, 0.6),
    "max_translation": (0, 0.6),
    "max_shear": (0, 0.3),
    "max_channel_shift": (0, 0.3),
    "max_rotation_degrees": (0, 90),
}
# What it has not, and is no part of the search there.
BESIDE_TABLE_5 = dict.fromkeys(("weight_decay", "horizontal_flips", "vertical_flips", "cutout", "mixup"), (0, 0))


def with_default(name: str) -> Config:
    return load_config([DEFAULT, ROOT / "config" / f"{name}.yaml"])


@pytest.mark.parametrize("name", rendered_files())
def test_generated_file_agrees_with_the_classes(name):
    assert (ROOT / name).read_text(encoding="utf-8") == rendered_files()[name], (
        "run python -m ensembleflow.config.render"
    )


def test_check_names_the_stale_files_and_writes_nothing(tmp_path, capsys):
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    (tmp_path / "config" / "README.md").write_text("edited by hand")
    capsys.readouterr()
    assert main(["--check", "--root", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "config/README.md" in told
    assert "config.yaml" not in told
    assert (tmp_path / "config" / "README.md").read_text() == "edited by hand"


def test_default_file_is_the_default_config():
    assert load_config([DEFAULT]) == Config()


def test_default_file_spells_out_every_key_but_those_of_the_paper():
    written, defaults = (
        leaves(each) for each in (yaml.safe_load(DEFAULT.read_text()), Config().model_dump(mode="json"))
    )
    assert {*defaults} - {*written} == {f"paper.{name}" for name in PaperConfig.model_fields}
    for key, value in written.items():
        # Null follows from other keys, as by default.
        assert value == defaults[key] or (value is None and find_key(tuple(key.split("."))).field.default is None)


def test_the_papers_file_spells_out_every_key_of_the_paper():
    assert {*yaml.safe_load((ROOT / "config/paper.yaml").read_text())["paper"]} == {*PaperConfig.model_fields}


def test_every_key_has_a_description_that_is_in_the_manual_and_the_default_file_or_that_of_the_paper():
    manual = (ROOT / "config" / "README.md").read_text()
    lines = [*DEFAULT.read_text().splitlines(), *(ROOT / "config" / "paper.yaml").read_text().splitlines()]
    comments = " ".join(line.strip().removeprefix("# ") for line in lines)
    for key in all_keys():
        if key.name == "paper":
            continue
        assert key.description, key.name
        assert key.description in comments, key.name
        if key.block is None:
            assert f"| `{key.name}` |" in manual
            assert key.description in manual


def test_lines_of_the_default_file_are_short():
    assert max(map(len, render_yaml().splitlines())) <= 100


def test_schema_is_a_json_schema_that_accepts_the_shipped_configs():
    schema = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    for name in ["config", *OVERRIDES]:
        values = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
        assert list(Draft202012Validator(schema).iter_errors(values)) == []


@pytest.mark.parametrize(
    "values",
    [{"sed": 1}, {"search": {"n_trails": 4}}, {"search": {"n_trials": "four"}}, {"selection": {"budgets": ["4y"]}}],
)
def test_schema_refuses_what_the_classes_refuse(values):
    schema = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text())
    assert list(Draft202012Validator(schema).iter_errors(values))


@pytest.mark.parametrize("name", OVERRIDES)
def test_shipped_override_holds_only_what_differs(name):
    values = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    values.get("search", {}).get("space", {}).clear()  # Table 5 is written out in full
    assert with_default(name) != Config()
    parse_config(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()))
    repeated = [
        key for key in leaves(values) if leaves(values)[key] == leaves(json.loads(Config().model_dump_json()))[key]
    ]
    assert {key for key in repeated if not (name == "paper" and key.startswith("paper."))} <= {"dataset.test_fraction"}


def leaves(values, prefix=""):
    found = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize("name", ["cifar100", "microfossils"])
def test_paper_configs_search_exactly_the_space_of_table_5(name):
    space = with_default(name).search.space
    found = {key: (each.low, each.high) if isinstance(each, Range) else each for key, each in space}
    assert found == TABLE_5 | BESIDE_TABLE_5
    assert not any(each.log for _, each in space if isinstance(each, Range)), "its ranges are linear"


@pytest.mark.parametrize(
    ("name", "budgets"),
    [
        ("cifar100", ["20", "40", "60", "80", "120", "160", "240", "320"]),
        ("microfossils", ["125", "250", "375", "500", "750", "1000"]),
    ],
)
def test_paper_configs_have_the_budgets_of_table_2(name, budgets):
    assert with_default(name).selection.budgets == budgets


def test_paper_configs_split_as_the_paper():
    cifar100, microfossils = with_default("cifar100").dataset, with_default("microfossils").dataset
    assert round(500 * cifar100.valid_fraction) == 20
    assert (microfossils.valid_fraction, microfossils.test_fraction) == (0.08, 0.2)
    assert with_default("microfossils").search.metric == "macro_f1_error"


def test_tiny_study_keeps_enough_models_to_ensemble():
    tiny = with_default("tiny")
    assert n_kept(tiny.search.n_trials, tiny.library.keep_fraction) >= 2
