"""Convert exported functions to ONNX.

Run as a file by `prepare.convert_to_onnx`, as a child of `child_process`: its settings are pairs, the exported
function's folder and the file to write. It has one answer where one cannot be converted, why, and else none.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from ensembleflow.child_process import run_child

# Of the operators that tf2onnx has tests for.
_OPSET = 17


def convert(pairs: list[tuple[str, str]], answer: Callable[[object], None]) -> None:
    """Convert all pairs."""
    exported = ""
    try:
        import tensorflow as tf

        tf2onnx = importlib.import_module("tf2onnx")  # it has no types

        for exported, output in pairs:
            loaded = tf.saved_model.load(exported)
            _, inputs = loaded.signatures["serving_default"].structured_input_signature
            tf2onnx.convert.from_function(loaded.serve, list(inputs.values()), opset=_OPSET, output_path=output)
    except Exception as error:  # whatever it is, the parent raises it as one error
        answer(f"{exported}: {type(error).__name__}: {' '.join(str(error).split())[:400]}")


if __name__ == "__main__":
    sys.exit(run_child(convert))
