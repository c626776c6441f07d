"""pepper profiles ONNX models on devices, learns their latency and places their parts."""

__version__ = "0.1.0"
