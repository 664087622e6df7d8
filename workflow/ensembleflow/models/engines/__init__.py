"""The engines that compute a member: TensorFlow's exported function, ONNX Runtime, OpenVINO."""

from ensembleflow.models.engines.load import (
    CPU_ONLY_ENGINES,
    DEFAULT_ENGINE,
    ENGINES,
    FLOAT32_ENGINES,
    check_engine,
    import_engine,
    installed_engines,
    load_engine,
    start_engine,
)
from ensembleflow.models.engines.loaded import LoadedEngine
from ensembleflow.models.engines.prepare import ONNX_FILE, convert_to_onnx, prepare_members

__all__ = [
    "CPU_ONLY_ENGINES",
    "DEFAULT_ENGINE",
    "ENGINES",
    "FLOAT32_ENGINES",
    "ONNX_FILE",
    "LoadedEngine",
    "check_engine",
    "convert_to_onnx",
    "import_engine",
    "installed_engines",
    "load_engine",
    "prepare_members",
    "start_engine",
]
