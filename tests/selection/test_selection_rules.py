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


# It starts the device, and nothing hangs on it.
NOT_ITS_RESULT = {"models/runtime.py"}


def modules_used(start):
    """The modules of the selection that a module imports, directly or through others, and those of earlier stages."""
    found, left = set(), [start]
    while left:
        module = left.pop()
        if module in found:
            continue
        found.add(module)
        if not module.startswith("selection/"):
            continue
        for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            _, *names = node.module.split(".")
            if names == ["library"]:
                # What opens and reads a cache.
                left.append("library/predictions.py")
            elif names == ["models"] or (names[:1] == ["selection"] and (PACKAGE / "/".join(names)).is_dir()):
                left += [f"{'/'.join(names)}/{each.name}.py" for each in node.names]
            elif names[:1] in (["library"], ["models"], ["selection"]):
                left.append(f"{'/'.join(names)}.py")
    return found


def code_inputs(rule):
    """The code inputs of a rule of the selection, by evaluating what stands there."""

    def stage_code(folder, modules=None, beside=()):
        paths = [path for path in (PACKAGE / folder).glob("*.py") if modules is None or path.stem in modules]
        return [*(path.relative_to(PACKAGE).as_posix() for path in paths), *beside]

    text = (REPOSITORY / "rules" / "selection.smk").read_text(encoding="utf-8")
    (shared,) = re.findall(r"^ENSEMBLE_CODE = (\[.*?^\])", text, re.MULTILINE | re.DOTALL)
    (code,) = re.findall(rf"^rule {rule}:\n.*?^        code=(.*?),\n    output:", text, re.MULTILINE | re.DOTALL)
    names = {"stage_code": stage_code}
    names["ENSEMBLE_CODE"] = eval(shared, names)
    return {module for module in eval(code, names) if not module.endswith("__init__.py")}


@pytest.mark.parametrize(
    ("rule", "module"),
    [("select_ensemble", "selection/stage.py"), ("compare_methods", "selection/rivals/comparison.py")],
)
def test_a_rule_runs_again_for_every_module_that_its_result_hangs_on(rule, module):
    assert modules_used(module) - NOT_ITS_RESULT <= code_inputs(rule)


def test_no_edit_of_a_rival_chooses_the_members_again():
    assert not any(module.startswith("selection/rivals/") for module in code_inputs("select_ensemble"))


@pytest.mark.parametrize("function", [select_ensemble, compare_methods])
def test_a_rule_hands_its_function_everything_that_it_takes(function):
    script = REPOSITORY / "workflow" / "scripts" / f"{function.__name__}.py"
    (call,) = [
        node
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function.__name__
    ]
    assert {each.arg for each in call.keywords} == set(inspect.signature(function).parameters)
