"""Does the harness change what it measures on other execution providers? pepper's median against a bare loop.

Every provider that runs a small model here, with each binding (``measure.binding``), batch 1 and 8. Reference: a bare
Python loop in a fresh process on the same core, same provider and options, same model (products of matrices: every
provider has them); the two take turns (A B B A ...). What a provider refuses, such as a binding after which it does not
wait for its device, is said in place of its figures.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import composed, print_table
from pepper.config import DeviceConfig, LoadConfig, PepperConfig
from pepper.config.measuring import Binding
from pepper.devices import host, runtimes
from pepper.devices.cores import resolve
from pepper.devices.device import DeviceSpec
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.known import graph_option
from pepper.devices.providers.small_models import products
from pepper.errors import MeasureError
from pepper.graph.model import find_model
from pepper.measure.launcher import Bench

WIDTHS = (512,) * 9
BARE_LOOP = """
import importlib, json, os, sys, time
options = json.loads(sys.argv[1])
os.sched_setaffinity(0, options["cores"])
import numpy as np, onnxruntime as ort
session_options = ort.SessionOptions()
session_options.intra_op_num_threads = options["threads"]
session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
name, settings = options["name"], options["options"]
if options["library"]:
    module = importlib.import_module(options["library"])
    where = getattr(module, "get_library_path", None) or module.library_path
    ort.register_execution_provider_library(name, str(where()))
    found = [device for device in ort.get_ep_devices() if device.ep_name == name]
    session_options.add_provider_for_devices(found[:1], settings)
    session = ort.InferenceSession(options["path"], session_options)
else:
    session = ort.InferenceSession(options["path"], session_options, providers=[(name, settings)])
inputs = {"input": np.random.default_rng(0).random(options["shape"]).astype(np.float32)}
run = lambda: session.run(None, inputs)
kind = {"Cuda": "cuda", "WebGPU_Buf": "webgpu"}.get(session.get_input_memory_infos()[0].name, "cpu")
if options["binding"] != "host" or kind != "cpu":
    binding = session.io_binding()
    if kind == "cpu":
        binding.bind_cpu_input("input", inputs["input"])
        binding.bind_output("output")
    else:
        value = session.create_ortvalue_from_shape_and_type(options["shape"], np.float32, kind)
        value.update_inplace(inputs["input"])
        binding.bind_ortvalue_input("input", value)
        result = session.create_ortvalue_from_shape_and_type(options["shape"], np.float32, kind)
        binding.bind_ortvalue_output("output", result)
    def bound():
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
    def carried():
        value.update_inplace(inputs["input"])
        session.run_with_iobinding(binding)
        return result.numpy()
    run = carried if options["binding"] == "host" else bound
for _ in range(3):  # kernels are made at first
    run()
durations = []
start = time.perf_counter()
while time.perf_counter() - start < options["seconds"] or len(durations) < 10:
    before = time.perf_counter_ns()
    run()
    durations.append(time.perf_counter_ns() - before)
print(json.dumps(durations))
"""


def bare_median_ms(spec: DeviceSpec, config: PepperConfig, path: Path, batch: int, seconds: float) -> float:
    """Time the model in a bare loop; what the warm-up takes at least is left out.

    Raises:
        MeasureError: The loop ended in an error.
    """
    warmup_s = config.measure.warmup_min_seconds
    choice, binding = spec.choice, config.measure.binding
    captured = {str(graph_option(choice.name)): "1"} if binding == Binding.graph else {}
    options = {
        **choice.to_json(),
        "options": {**choice.options, **captured},
        "path": str(path),
        "shape": [batch, WIDTHS[0]],
        "cores": list(spec.cores),
        "threads": spec.threads,
        "seconds": seconds + warmup_s,
        "binding": binding,
    }
    command = [sys.executable, "-c", BARE_LOOP, json.dumps(options)]
    # A session of its own, as pepper's worker has: Linux gives each session alike of a core that others use, too.
    done = subprocess.run(command, capture_output=True, start_new_session=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise MeasureError(f"the bare loop ended with status {done.returncode}: {said[-1] if said else 'no word'}")
    durations = np.array(json.loads(done.stdout.splitlines()[-1])) / 1e6
    return float(np.median(durations[np.cumsum(durations) > min(1000 * warmup_s, durations.sum() / 2)]))


def pepper_median_ms(spec: DeviceSpec, config: PepperConfig) -> float:
    """Profile the model as a sweep would.

    Raises:
        MeasureError: The provider does not run it, or not so.
    """
    with Bench(find_model(config.model), spec, config.measure, None) as bench:
        return bench.profile(LoadConfig(name="idle", percent=0)).metrics["latency_p50_ms"]


def compare(choice: Choice, binding: Binding, batch: int, rounds: int, seconds: float, folder: Path) -> list[str]:
    """Return a row of the table.

    Raises:
        MeasureError: The provider does not run it, or not so.
    """
    file = folder / f"products{batch}.onnx"
    file.write_bytes(products(batch, *WIDTHS))
    config = composed(
        "model=onnx",
        f"model.path={file}",
        f"measure.min_seconds={seconds}",
        f"measure.max_seconds={seconds}",
        "measure.min_samples=5",
        f"measure.binding={binding}",
    )
    spec = resolve(
        DeviceConfig(
            name=choice.name,
            cores=host.allowed_cores()[-1:],
            threads=1,
            provider=choice.name,
            library=choice.library,
            options=dict(choice.options),
        )
    )
    pairs = []
    for number in range(rounds):
        if number % 2 == 0:  # ours first: it refuses what the bare loop would time wrongly
            ours = pepper_median_ms(spec, config)
            bare = bare_median_ms(spec, config, file, batch, seconds)
        else:
            bare = bare_median_ms(spec, config, file, batch, seconds)
            ours = pepper_median_ms(spec, config)
        pairs.append((ours, bare))
    ratios = sorted(ours / bare for ours, bare in pairs)
    return [
        choice.name,
        str(binding),
        str(batch),
        f"{median(bare for _, bare in pairs):.3f}",
        f"{median(ours for ours, _ in pairs):.3f}",
        f"{median(ratios):.4f}",
        f"{ratios[0]:.3f} .. {ratios[-1]:.3f}",
    ]


def table(choice: Choice, rounds: int, seconds: float, folder: Path) -> Iterator[list[str]]:
    """Yield the rows of a provider."""
    try:
        runtimes.first_run_ms(choice)
    except MeasureError as error:
        yield [choice.name, "", "", "", "", "runs nothing", _briefly(error)]
        return
    for binding in Binding:
        try:
            for batch in (1, 8):
                yield compare(choice, binding, batch, rounds, seconds, folder)
        except MeasureError as error:
            yield [choice.name, str(binding), "", "", "", "refused", _briefly(error)]


def _briefly(error: MeasureError) -> str:
    return re.split(r"; | \(", str(error).removeprefix("ValueError: "))[0][:80]


def plugin(words: Sequence[str]) -> Choice:
    """Return a plug-in's provider, from its name, its library and its options."""
    name, library, *options = words
    return Choice(name, library, dict(option.split("=", 1) for option in options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="timed span of each turn")
    said = "NAME LIBRARY [OPTION=VALUE ...]"
    parser.add_argument("--plugin", nargs="+", metavar=("NAME", "WORD"), action="append", default=[], help=said)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row
            for choice in (*runtimes.choices(), *map(plugin, options.plugin))
            for row in table(choice, options.rounds, options.seconds, Path(folder))
        ]
    print_table(
        f"pepper's median against a bare loop, {options.rounds} interleaved rounds of {options.seconds:g} s",
        ["provider", "binding", "batch", "bare ms", "pepper ms", "ratio (median)", "range"],
        rows,
    )
    print(f"load average: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
