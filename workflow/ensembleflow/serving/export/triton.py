"""A model repository for Triton Inference Server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensembleflow.serving.signature import INPUT, PROBABILITIES, Signature

__all__ = ["LABELS_FILE", "write_triton_config"]

LABELS_FILE = "labels.txt"

# Ten bits of mantissa, by which a GPU would multiply otherwise, change the third digit of a probability.
_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_images}
input [
  {{
    name: "{input}"
    data_type: TYPE_{datatype}
    format: {layout}
    dims: [ {dims} ]
  }}
]
output [
  {{
    name: "{output}"
    data_type: TYPE_FP32
    dims: [ {n_classes} ]
    label_filename: "{labels}"
  }}
]
dynamic_batching {{ }}
# On GPUs: float32 as it is, not TensorFloat-32.
optimization {{
  execution_accelerators {{
    gpu_execution_accelerator: [
      {{
        name: "cuda"
        parameters {{ key: "use_tf32" value: "0" }}
      }}
    ]
  }}
}}
"""


def write_triton_config(folder: Path, signature: Signature, class_names: Sequence[str]) -> None:
    """Write `config.pbtxt` and the classes' names, a line each, beside the folder of the model's version.

    Args:
        folder: the model's, named as it is.
        signature: what the model is called and takes.
        class_names: name of class i at place i.

    Source: Triton Inference Server, "Model Configuration" and, for the GPU's option, its ONNX Runtime backend.
    """
    config = _CONFIG.format(
        name=signature.model_name,
        max_images=signature.max_images,
        input=INPUT,
        datatype=signature.datatype,
        layout=signature.layout,
        dims=", ".join(map(str, signature.image_shape)),
        output=PROBABILITIES,
        n_classes=len(class_names),
        labels=LABELS_FILE,
    )
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    lines = [" ".join(name.splitlines()) or name for name in class_names]
    (folder / LABELS_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
