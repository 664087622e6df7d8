"""What the commands say of themselves."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from ensembleflow.cli import make_parser

PAGE = (Path(__file__).resolve().parents[2] / "docs/commands.md").read_text(encoding="utf-8")


def commands() -> argparse._SubParsersAction:
    (found,) = [action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return found


@pytest.mark.parametrize("name", commands().choices)
def test_an_option_tells_its_default_once_and_never_none(name: str) -> None:
    text = " ".join(commands().choices[name].format_help().split())
    assert "None" not in text
    for option in re.split(r"(?= --[a-z])", text):
        assert option.count("(default:") <= 1, option


def test_the_page_of_commands_has_each_with_what_it_says_of_itself() -> None:
    told = {action.dest: action.help for action in commands()._choices_actions}
    rows = dict(re.findall(r"^\| `ensembleflow ([\w-]+)` \| (.*?) \|", PAGE, re.MULTILINE))
    assert rows == told
