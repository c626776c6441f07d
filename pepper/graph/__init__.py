"""ONNX graphs: load, cuts, characteristics, split."""
