"""Tells what onnxruntime knows of a model's tensors: ``python -m pepper.graph.observer FOLDER``; a process of its own.

The folder holds ``model.onnx``, whose outputs are the tensors in question, ``values.npz`` with its inputs by name (it
is missing if they cannot be made) and ``limits.json``. It writes ``types.json`` once the model is open, and
``shapes.json`` once it has run.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


def observe(folder: Path) -> None:
    """Open the model and run it, within the limits."""
    _limit(**json.loads((folder / "limits.json").read_text()))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # it runs once
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # folds constants
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/")
    session = ort.InferenceSession((folder / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])
    _write(folder / "types.json", {value.name: [value.type, value.shape] for value in session.get_outputs()})
    if (folder / "values.npz").exists():
        with np.load(folder / "values.npz", allow_pickle=False) as stored:
            feeds = {name: _typed(values) for name, values in stored.items()}
        names = [value.name for value in session.get_outputs()]
        results = dict(zip(names, session.run(names, feeds), strict=True))
        shapes = {name: list(value.shape) for name, value in results.items() if isinstance(value, np.ndarray)}
        _write(folder / "shapes.json", shapes)


def _typed(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Text is stored as characters of a fixed width; onnxruntime takes objects."""
    return values.astype(object) if values.dtype.kind == "U" else values


def _limit(memory_bytes: int, seconds: int) -> None:
    """Bound the memory beyond what is mapped by now, and the processor time."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _write(file: Path, content: object) -> None:
    scratch = file.with_suffix(".part")
    scratch.write_text(json.dumps(content))
    scratch.rename(file)


if __name__ == "__main__":
    observe(Path(sys.argv[1]))
