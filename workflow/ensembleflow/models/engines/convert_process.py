"""Convert exported functions to ONNX.

Run as a file by `prepare.convert_to_onnx`: the standard input holds a JSON list of pairs, the exported function's
folder and the file to write. What goes wrong is told in one line of the standard output.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

# Of the operators that tf2onnx has tests for.
_OPSET = 17


def main() -> int:
    """Convert all pairs of the standard input."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    exported = ""
    try:
        import tensorflow as tf

        tf2onnx = importlib.import_module("tf2onnx")  # it has no types

        for exported, output in json.load(sys.stdin):
            loaded = tf.saved_model.load(exported)
            _, inputs = loaded.signatures["serving_default"].structured_input_signature
            tf2onnx.convert.from_function(loaded.serve, list(inputs.values()), opset=_OPSET, output_path=output)
    except Exception as error:  # whatever it is, the parent tells it as one error
        answers.write(f"{exported}: {type(error).__name__}: {' '.join(str(error).split())[:400]}\n")
        answers.flush()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
