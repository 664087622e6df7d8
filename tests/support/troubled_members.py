"""Members for ONNX Runtime that get into trouble with batches of more than eight images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ensembleflow.models.engines import ONNX_FILE

MOST_IMAGES = 8


def make_member(folder: Path, trouble: str, n_classes: int = 10) -> Path:
    """A member that answers all images of 8 x 8 x 1 alike; its trouble is to `hang` or to take all `memory`."""
    branch, initializers = {"hang": _endless_loop, "memory": _all_memory}[trouble]()
    nodes = [
        helper.make_node("Shape", ["images"], ["n_images"], end=1),
        helper.make_node("Greater", ["n_images", "most_images"], ["too_many"]),
        helper.make_node("Squeeze", ["too_many"], ["is_trouble"]),
        helper.make_node(
            "If",
            ["is_trouble"],
            ["one"],
            then_branch=branch,
            else_branch=helper.make_graph(
                [helper.make_node("Identity", ["unit"], ["fine"])], "fine", [], [_scalar("fine")]
            ),
        ),
        helper.make_node("Concat", ["n_images", "classes"], ["shape"], axis=0),
        helper.make_node("Div", ["one", "n_classes"], ["share"]),
        helper.make_node("Expand", ["share", "shape"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "member",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 8, 8, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", n_classes])],
        [
            _constant("most_images", np.array([MOST_IMAGES], np.int64)),
            _constant("classes", np.array([n_classes], np.int64)),
            _constant("n_classes", np.array(n_classes, np.float32)),
            _constant("unit", np.array(1, np.float32)),
            *initializers,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    folder.mkdir(parents=True)
    onnx.save(model, folder / ONNX_FILE)
    return folder


def _endless_loop() -> tuple[onnx.GraphProto, list[onnx.TensorProto]]:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("Identity", ["value"], ["next_value"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn_number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            _scalar("value"),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), _scalar("next_value")],
    )
    loop = helper.make_node("Loop", ["", "is_trouble", "unit"], ["looped"], body=body)
    return helper.make_graph([loop], "hang", [], [_scalar("looped")]), []


def _all_memory() -> tuple[onnx.GraphProto, list[onnx.TensorProto]]:
    nodes = [
        helper.make_node("Expand", ["unit", "petabyte"], ["huge"]),
        helper.make_node("ReduceMean", ["huge"], ["mean"], keepdims=0),
    ]
    return helper.make_graph(nodes, "memory", [], [_scalar("mean")]), [
        _constant("petabyte", np.array([10**15 // 4], np.int64))
    ]


def _scalar(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [])


def _constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)
