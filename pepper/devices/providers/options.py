"""How a session works: alike where a model is timed alone and where it is a stage of a pipeline."""

from typing import Any

import onnxruntime as ort

_OPTIMIZATION = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session_options(threads: int, optimization: str, spinning: bool, parallel: bool) -> Any:
    """Return onnxruntime's options for this many threads; see :class:`pepper.config.SessionConfig`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = _OPTIMIZATION[optimization]
    options.log_severity_level = 3
    for kind in ("intra", "inter"):
        options.add_session_config_entry(f"session.{kind}_op.allow_spinning", str(int(spinning)))
    if parallel:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = threads
    return options
