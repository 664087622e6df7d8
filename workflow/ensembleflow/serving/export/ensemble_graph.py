"""One ONNX graph of a whole ensemble: its members side by side on the same images, and what combines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ensembleflow
from ensembleflow.errors import EngineError
from ensembleflow.serving.signature import INPUT, PROBABILITIES

if TYPE_CHECKING:
    import onnx

__all__ = ["BATCH_AXIS", "write_ensemble_graph"]

BATCH_AXIS = "batch"
"""What the graph calls the axis of the images, which may have any length."""

_VALUES = {"uint8": "pixels from 0 to 255", "float32": "float values as they were given for training"}
# Protobuf's limit is 2 GiB a file; what is not weights has room beside them.
_MAX_FILE_BYTES = 2**31 - 2**26


def write_ensemble_graph(
    members: Mapping[str, Path],
    output: Path,
    image_shape: Sequence[int],
    n_classes: int,
    metadata: Mapping[str, str],
    image_dtype: str = "uint8",
) -> int:
    """Write the mean of members as one ONNX graph.

    It takes `images`, (batch, *image_shape) of `image_dtype`, for batches of any size, and gives `probabilities`,
    float32 (batch, classes). Names of a member's nodes and weights begin with its model id and a slash. Where protobuf
    allows no file that large, the weights lie beside it, in `{output}.data`.

    Args:
        members: each member's ONNX file, by model id: one input and one output of these shapes.
        output: the file to write.
        image_shape: (height, width, channels), or of other samples their shape.
        n_classes: number of classes.
        metadata: what the file says of itself.
        image_dtype: `uint8` or `float32`.

    Returns:
        The version of ONNX's operators that it uses.

    Raises:
        EngineError: the members were converted to different versions of the operators, or have other tensors.
    """
    import onnx

    models = {model: onnx.load_model(path) for model, path in members.items()}
    try:
        merged = _merged(models, list(image_shape), image_dtype, n_classes)
        onnx.helper.set_model_props(merged, dict(metadata))
        n_bytes = sum(path.stat().st_size for path in members.values())
        onnx.save_model(
            merged,
            str(output),
            save_as_external_data=n_bytes > _MAX_FILE_BYTES,
            location=f"{output.name}.data",
        )
        onnx.checker.check_model(str(output), full_check=True)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(
            "members cannot be merged into one graph",
            where=", ".join(map(str, members.values())),
            found=" ".join(str(error).split())[:400],
            hint="make the bundle again, so that all members are converted alike: snakemake bundles",
        ) from error
    return next(each.version for each in merged.opset_import if each.domain in ("", "ai.onnx"))


def _merged(
    models: Mapping[str, onnx.ModelProto], image_shape: list[int], image_dtype: str, n_classes: int
) -> onnx.ModelProto:
    from onnx import compose, helper

    first = next(iter(models.values()))
    opsets = _opsets(first)
    images, answers, graphs = [], [], []
    for model_id, model in models.items():
        if _opsets(model) != opsets:
            raise ValueError(f"operators of versions {opsets} and, in {model_id}, {_opsets(model)}")
        taken, given = _tensor_names(model)
        images.append((f"{INPUT}:{model_id}", f"{model_id}/{taken}"))  # no model id has a colon
        answers.append((f"{model_id}/{given}", f"{PROBABILITIES}:{model_id}"))
        graphs.append(compose.add_prefix(model, f"{model_id}/", inplace=True).graph)
    head = _copies_of_images([copy for copy, _ in images], image_shape, image_dtype)
    tail = _mean([name for _, name in answers], n_classes)
    graph = compose.merge_graphs(head, _side_by_side(graphs), images, doc_string="")
    graph = compose.merge_graphs(graph, tail, answers, name="ensemble", doc_string="")
    return helper.make_model(
        graph,
        producer_name="ensembleflow",
        producer_version=ensembleflow.__version__,
        doc_string=f"The mean of an ensemble's class probabilities; images are {_VALUES[image_dtype]}.",
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(model.ir_version for model in models.values()),
        functions=[each for model in models.values() for each in model.functions],
    )


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    return {each.domain: each.version for each in model.opset_import}


def _tensor_names(model: onnx.ModelProto) -> tuple[str, str]:
    """The names of a member's only input and output."""
    inputs, outputs = ([each.name for each in tensors] for tensors in (model.graph.input, model.graph.output))
    if not (len(inputs) == len(outputs) == 1):
        raise ValueError(f"inputs {', '.join(inputs)}; outputs {', '.join(outputs)}; expected one of each")
    return inputs[0], outputs[0]


def _side_by_side(graphs: list[onnx.GraphProto]) -> onnx.GraphProto:
    from onnx import compose

    # Two and two, since each merge copies both.
    while len(graphs) > 1:
        left_over = [graphs.pop()] if len(graphs) % 2 else []
        pairs = zip(graphs[::2], graphs[1::2], strict=True)
        graphs = [compose.merge_graphs(first, second, [], doc_string="") for first, second in pairs] + left_over
    return graphs[0]


def _copies_of_images(copies: Sequence[str], image_shape: list[int], image_dtype: str) -> onnx.GraphProto:
    """The ensemble's input, under a name for each member: two graphs merge where an output meets an input."""
    from onnx import TensorProto, helper

    element = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}[image_dtype]

    def images(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, element, [BATCH_AXIS, *image_shape])

    nodes = [helper.make_node("Identity", [INPUT], [copy], name=f"give:{copy}") for copy in copies]
    return helper.make_graph(nodes, "images", [images(INPUT)], [images(copy) for copy in copies])


def _mean(answers: Sequence[str], n_classes: int) -> onnx.GraphProto:
    """The mean of the members' probabilities, as a sum: unlike Mean, GPUs have kernels for it."""
    from onnx import TensorProto, helper

    def probabilities(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH_AXIS, n_classes])

    total, count = f"{PROBABILITIES}:sum", f"{PROBABILITIES}:members"
    nodes = [
        helper.make_node("Sum", answers, [total], name="sum_members"),
        helper.make_node("Div", [total, count], [PROBABILITIES], name="mean"),
    ]
    return helper.make_graph(
        nodes,
        "mean",
        [probabilities(answer) for answer in answers],
        [probabilities(PROBABILITIES)],
        [helper.make_tensor(count, TensorProto.FLOAT, [], [len(answers)])],
    )
