"""Members' folders with what each engine reads.

TensorFlow and OpenVINO read the exported function itself; ONNX Runtime reads `model.onnx` beside it. The library's
folder of exported functions belongs to the rule that made it and is never added to: `prepare_members` makes folders
that hold the same files, and the ONNX file besides. A bundle's members are such folders.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ensembleflow.child_process import ChildEndedError, ChildProcess
from ensembleflow.errors import ArtefactError, EngineError
from ensembleflow.io import atomic_path, link_or_copy_folder

__all__ = ["ONNX_FILE", "convert_to_onnx", "prepare_members"]

ONNX_FILE = "model.onnx"


def prepare_members(exported: Sequence[Path], folder: Path, engines: Collection[str]) -> list[Path]:
    """Make one folder per member with all that `engines` read; files are linked, not copied, where that is possible.

    Args:
        exported: the members' exported functions, named after their models; they are not changed.
        folder: where to make the members' folders, of the same names.
        engines: names of `ENGINES`.

    Returns:
        The members' folders, to be loaded with any of `engines`.

    Raises:
        ArtefactError: an exported function is missing.
        EngineError: one cannot be converted, or the converter is not installed.
    """
    members = {path: Path(folder) / path.name for path in exported}
    for source, target in members.items():
        if not (source / "saved_model.pb").is_file():
            raise ArtefactError(
                "a member's exported function is missing", where=source, hint="snakemake library makes it again"
            )
        link_or_copy_folder(source, target)
    if "onnxruntime" in engines:
        convert_to_onnx({path: path / ONNX_FILE for path in members.values() if not (path / ONNX_FILE).exists()})
    return list(members.values())


def convert_to_onnx(outputs: Mapping[Path, Path]) -> None:
    """Convert exported functions to ONNX, in one process of its own, so that this one need not import TensorFlow.

    Args:
        outputs: the ONNX file to write, by the folder of the exported function.

    Raises:
        EngineError: one cannot be converted, or the converter (tf2onnx) is not installed; then none is written.
    """
    if not outputs:
        return
    with ExitStack() as stack:
        asides = [stack.enter_context(atomic_path(path)) for path in outputs.values()]
        pairs = [(str(source), str(aside)) for source, aside in zip(outputs, asides, strict=True)]
        child = ChildProcess(
            Path(__file__).with_name("convert_process.py"),
            pairs,
            environment={"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"},
            quoted=True,
        )
        with child:
            reason: object = None
            try:
                reason = next(child.answers(), None)
            except ChildEndedError as error:
                reason = error
        if reason is not None:
            raise EngineError(
                "members cannot be converted to ONNX",
                where=", ".join(map(str, outputs)),
                found=reason,
                hint='pip install "ensembleflow[onnxruntime]", or leave the engine onnxruntime out',
            )
