"""The selection's rules hand their functions everything that these take."""

import ast
import inspect
from pathlib import Path

import pytest

from ensembleflow.selection import compare_methods, select_cascade, select_ensemble

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("function", [select_ensemble, select_cascade, compare_methods])
def test_a_rule_hands_its_function_everything_that_it_takes(function):
    script = REPOSITORY / "workflow" / "scripts" / f"{function.__name__}.py"
    (call,) = [
        node
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function.__name__
    ]
    assert {each.arg for each in call.keywords} == set(inspect.signature(function).parameters)
