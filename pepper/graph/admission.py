"""Is a file that somebody sent a model that can be kept? Looked at in a process of its own, within limits.

``python -m pepper.graph.admission FILE MEMORY_BYTES CPU_SECONDS`` prints one line of JSON: `described` if it is, else
``{"error": ...}``. A file that takes more memory or time than allowed ends this process, and none but this.
"""

import contextlib
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any


def described(file: Path) -> dict[str, Any]:
    """Describe a model that can be kept: its inputs and outputs, and its operators if its sizes are known.

    Raises:
        ModelError: It cannot be read, is no valid model, or its weights lie in other files.
    """
    from pepper.errors import ModelError
    from pepper.graph.external import external_tensors
    from pepper.graph.load import load_graph
    from pepper.graph.sizes import concrete_shapes
    from pepper.graph.source import read_proto, real_inputs, tensor_spec

    proto = read_proto(file)
    if (tensor := next(external_tensors(proto), None)) is not None:
        raise ModelError(f"weight {tensor.name!r} lies in another file, which was not sent; save the model in one file")
    inputs = real_inputs(proto.graph)
    said: dict[str, Any] = {
        "inputs": [vars(spec) for spec in inputs],
        "outputs": [vars(tensor_spec(value)) for value in proto.graph.output],
        "operators": None,
        "sizes_wanted": None,
    }
    try:
        concrete_shapes(inputs, {}, {}, None)
    except ModelError as error:
        return {**said, "sizes_wanted": str(error)}
    return {**said, "operators": len(load_graph(file).operators)}


def _main(file: Path, memory_bytes: int, cpu_s: int) -> None:
    for kind, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        with contextlib.suppress(ValueError):  # a lower hard limit stands already
            resource.setrlimit(kind, (limit, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the service, which ends this
    from pepper.errors import PepperError

    try:
        answer = described(file)
    except PepperError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": f"{file}: takes more memory to read than {memory_bytes >> 20} MiB; export a simpler model"}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
