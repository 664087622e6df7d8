"""The rules of the selection: what they run again for, and what they hand on."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import ensembleflow
from ensembleflow.selection import compare_methods, select_ensemble

PACKAGE = Path(ensembleflow.__file__).parent
REPOSITORY = PACKAGE.parents[1]


def modules_used():
    """Modules of earlier stages whose names the selection's modules import, and that decide what it gives."""
    found = set()
    for path in (PACKAGE / "selection").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            _, *names = node.module.split(".")
            if names == ["library"]:
                # What opens and reads a cache.
                found.add("library/predictions.py")
            elif names == ["models"]:
                found |= {f"models/{each.name}.py" for each in node.names}
            elif names[:1] in (["library"], ["models"]):
                found.add(f"{'/'.join(names)}.py")
    # It starts the device, and nothing hangs on it.
    return found - {"models/runtime.py"}


@pytest.mark.parametrize("rule", ["select_ensemble", "compare_methods"])
def test_a_rule_runs_again_for_every_module_that_its_result_hangs_on(rule):
    text = (REPOSITORY / "rules" / "selection.smk").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^rule {rule}:\n(.*?)^    output:", text, re.MULTILINE | re.DOTALL)
    assert modules_used() == set(re.findall(r"(?:models|library)/\w+\.py", block))


@pytest.mark.parametrize("function", [select_ensemble, compare_methods])
def test_a_rule_hands_its_function_everything_that_it_takes(function):
    script = REPOSITORY / "workflow" / "scripts" / f"{function.__name__}.py"
    (call,) = [
        node
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function.__name__
    ]
    assert {each.arg for each in call.keywords} == set(inspect.signature(function).parameters)
