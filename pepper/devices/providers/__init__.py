"""Execution providers of onnxruntime: how each opens a model, runs it, and says how fast its device is."""
