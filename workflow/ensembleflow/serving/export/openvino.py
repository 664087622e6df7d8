"""OpenVINO's own file of a graph, and a model repository for OpenVINO Model Server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ensembleflow.io import write_json
from ensembleflow.models.engines import import_engine
from ensembleflow.serving.signature import INPUT, PROBABILITIES

__all__ = ["write_openvino_graph", "write_server_config"]

_LAYOUT = "NHWC"  # of images; samples of other ranks have none


def write_openvino_graph(onnx_file: Path, output: Path, metadata: Mapping[str, str]) -> None:
    """Write an ensemble's ONNX graph as OpenVINO's `model.xml`, with the weights, float32 as they are, beside it.

    Args:
        onnx_file: the ensemble, as `write_ensemble_graph` writes it.
        output: the file to write, which ends in `.xml`.
        metadata: what the file says of itself, in its block `rt_info`.

    Raises:
        EngineError: OpenVINO is not installed.
        RuntimeError: it does not know an operation.
    """
    openvino = import_engine("openvino")  # it has no types
    model = openvino.Core().read_model(onnx_file)
    (images,), (probabilities,) = model.inputs, model.outputs
    # Where the copies for the members were joined, the images have their names as well, and a server takes one of all.
    images.get_tensor().set_names({INPUT})
    probabilities.get_tensor().set_names({PROBABILITIES})
    if len(images.partial_shape) == len(_LAYOUT):
        model.get_parameters()[0].set_layout(openvino.Layout(_LAYOUT))
    for key, value in metadata.items():
        model.set_rt_info(value, ["ensembleflow", key])
    # By itself it would round the weights to float16.
    openvino.save_model(model, output, compress_to_fp16=False)


def write_server_config(path: Path, name: str) -> None:
    """Write the Model Server's config file: the model in the folder `name` beside it, computed in float32.

    Without that setting, processors that have bfloat16 compute in bfloat16.
    """
    config = {"name": name, "base_path": name, "plugin_config": {"INFERENCE_PRECISION_HINT": "f32"}}
    write_json(path, {"model_config_list": [{"config": config}]})
