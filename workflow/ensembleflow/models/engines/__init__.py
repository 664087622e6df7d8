"""The engines that compute a member: TensorFlow's exported function, ONNX Runtime, OpenVINO."""

DEFAULT_ENGINE = "tensorflow"
ENGINES = ("tensorflow", "onnxruntime", "openvino")

__all__ = ["DEFAULT_ENGINE", "ENGINES"]
