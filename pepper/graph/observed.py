"""What no rule infers, onnxruntime tells: the whole model is run once, in a process of its own, and the answer kept."""

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil

from pepper.caches import cache_folder
from pepper.documents import MOST_BYTES, read_bytes
from pepper.errors import ModelError
from pepper.graph.external import external_files, named_from_root
from pepper.graph.given import input_specs
from pepper.graph.inputs import draw_inputs
from pepper.graph.onnx_types import named_type
from pepper.graph.source import content_hash
from pepper.packages import onnxruntime_version

SECONDS, MOST_SECONDS = 12, 60
"""Longer than this onnxruntime may not take, neither of wall nor of processor time: with few weights, and with many."""

_FORMAT = 1  # raise it when what is kept changes
_BYTES_PER_S = 20e6  # of weights, towards more seconds
_SPARE_BYTES = 2 * 2**30  # for activations
_COPIES = 3  # of the weights that onnxruntime may hold at a time


@dataclass(frozen=True)
class Observed:
    """What onnxruntime knows of tensors.

    Attributes:
        types: Their types, with the sizes that are known, by name.
        by_run: Names of those whose sizes only the run showed: with other values they may be others.
    """

    types: Mapping[str, onnx.TypeProto]
    by_run: frozenset[str]


def observe(
    proto: onnx.ModelProto,
    file: Path,
    shapes: Mapping[str, Sequence[int]],
    given: Mapping[str, Any],
    names: Sequence[str],
) -> Observed:
    """Ask onnxruntime for the types of tensors: what it infers, and what a run shows.

    The answer is kept in the user's cache, by the content of the model and its weights, the sizes and values of its
    inputs and onnxruntime's version. A run that takes too long or too much memory tells nothing.

    Args:
        proto: The model, its nodes in topological order.
        file: Its file.
        shapes: A fixed shape for each input that is a tensor.
        given: Values by input name, see `pepper.graph.inputs.input_spec`; others are drawn.
        names: The tensors of the main graph that are asked for.
    """
    weights = external_files(proto, file)
    values, described = _values(proto, shapes, given)
    question = {
        "format": _FORMAT,
        "content": content_hash([file, *weights]),
        "onnxruntime": onnxruntime_version(),
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "values": described,
        "names": sorted(names),
    }
    key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
    kept = cache_folder("observed") / f"{key}.json"
    if (known := _observed(_read(kept))) is not None:
        return known
    size = sum(path.stat().st_size for path in (file, *weights))
    memory_bytes = _SPARE_BYTES + _COPIES * size
    if memory_bytes > psutil.virtual_memory().available:
        return Observed({}, frozenset())
    deadline = time.monotonic() + min(SECONDS + size / _BYTES_PER_S, MOST_SECONDS)
    asked = _with_outputs(named_from_root(proto, file), shapes, names)
    answer, settled = _asked(asked, values, memory_bytes, deadline)
    if not answer["types"] and _branches(proto) and time.monotonic() < deadline:
        # At fixed sizes onnxruntime refuses a branch that could not run, though it never does: then at the file's own.
        asked = _with_outputs(named_from_root(proto, file), {}, names)
        answer, settled = _asked(asked, values, memory_bytes, deadline)
    if settled:
        _keep(kept, answer)
    return _observed(answer) or Observed({}, frozenset())


def _branches(proto: onnx.ModelProto) -> bool:
    return any(node.op_type == "If" for node in proto.graph.node)


def _values(
    proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], given: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, Any]:
    """Values of the inputs, and what decides them; None if an input cannot be made."""
    try:
        specs = input_specs(proto.graph, shapes, given)
        return draw_inputs(specs, seed=0), [spec.described() for spec in specs]
    except (ModelError, KeyError):
        return None, None


_Answer = dict[str, dict[str, Any]]
"""``types``: onnxruntime's name of each tensor's type and the sizes it infers; ``shapes``: those of the run."""


def _with_outputs(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], names: Sequence[str]) -> onnx.ModelProto:
    """Make the tensors the model's only outputs, at inputs of these shapes; what the file says of inner sizes is
    dropped."""
    graph = model.graph
    for value in graph.input:
        if value.name in shapes and value.type.HasField("tensor_type"):
            value.type.CopyFrom(
                onnx.helper.make_tensor_type_proto(value.type.tensor_type.elem_type, shapes[value.name])
            )
    del graph.value_info[:]
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return model


def _asked(
    model: onnx.ModelProto, values: Mapping[str, "np.ndarray[Any, Any]"] | None, memory_bytes: int, deadline: float
) -> tuple[_Answer, bool]:
    """Ask; returns the answer, and whether another try would give the same."""
    with tempfile.TemporaryDirectory(prefix="pepper-observed-") as name:
        folder = Path(name)
        seconds = math.ceil(max(1.0, deadline - time.monotonic()))
        onnx.save_model(model, str(folder / "model.onnx"))
        (folder / "limits.json").write_text(json.dumps({"memory_bytes": memory_bytes, "seconds": seconds}))
        if values is not None:
            np.savez(folder / "values.npz", allow_pickle=False, **{n: _plain(value) for n, value in values.items()})
        command = [sys.executable, "-m", "pepper.graph.observer", name]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=seconds,
                check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            settled = done.returncode in (0, 1)  # 1: onnxruntime refused it; a signal may come from anywhere
        except subprocess.TimeoutExpired:
            settled = False
        found = {key: _read(folder / f"{key}.json") or {} for key in ("types", "shapes")}
    return found, settled


def _plain(value: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return value.astype(str) if value.dtype.hasobject else value


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(read_bytes(file, MOST_BYTES))
    except (OSError, ValueError):  # there is none, or it is damaged: asked again
        return None
    return content if isinstance(content, dict) else None


def _keep(file: Path, answer: _Answer) -> None:
    with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False) as scratch:
        json.dump(answer, scratch)
    Path(scratch.name).rename(file)


def _observed(answer: _Answer | None) -> Observed | None:
    """Read an answer; None if it is none, such as a damaged file."""
    types: dict[str, onnx.TypeProto] = {}
    by_run = set()
    try:
        answer = answer or {}
        for name, (kind, sizes) in answer["types"].items():
            known = named_type(kind)
            if known is None:
                continue
            shown = answer["shapes"].get(name)
            inferred = sizes if sizes and all(isinstance(size, int) and size >= 0 for size in sizes) else None
            shape = inferred if shown is None else shown
            if known.WhichOneof("value") == "tensor_type" and shape is not None:
                known = onnx.helper.make_tensor_type_proto(known.tensor_type.elem_type, shape)
                if shape != inferred:
                    by_run.add(name)
            types[name] = known
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return Observed(types, frozenset(by_run))
