"""Does the harness change what it measures? pepper's median against a bare loop of ``session.run``.

Reference: a bare Python loop in a fresh process on the same core, same session options, same input; the
two take turns (A B B A ...) so that a drift of the machine hits both.
"""

import argparse
import itertools
import json
import subprocess
import sys
from statistics import median

import numpy as np

from benchmarks.common import composed, print_table
from pepper.config import LoadConfig, PepperConfig
from pepper.devices.cores import resolve
from pepper.devices.device import DeviceSpec
from pepper.graph.model import ModelFile, find_model
from pepper.measure.launcher import Bench

BARE_LOOP = """
import json, os, sys, time
options = json.loads(sys.argv[1])
os.sched_setaffinity(0, options["cores"])
import numpy as np, onnxruntime as ort
session_options = ort.SessionOptions()
session_options.intra_op_num_threads = options["threads"]
session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(options["path"], session_options, providers=["CPUExecutionProvider"])
rng = np.random.default_rng(0)
inputs = {name: rng.random(shape).astype(np.float32) for name, shape in options["shapes"].items()}
durations = []
start = time.perf_counter()
while time.perf_counter() - start < options["seconds"]:
    before = time.perf_counter_ns()
    session.run(None, inputs)
    durations.append(time.perf_counter_ns() - before)
print(json.dumps(durations))
"""


def bare_median_ms(model: ModelFile, device: DeviceSpec, seconds: float, warmup_s: float) -> float:
    """Time the model in a bare loop; the loop's first ``warmup_s`` are left out."""
    options = {
        "path": str(model.file),
        "shapes": model.shapes,
        "cores": list(device.cores),
        "threads": device.threads,
        "seconds": seconds + warmup_s,
    }
    command = [sys.executable, "-c", BARE_LOOP, json.dumps(options)]
    # A session of its own, as pepper's worker has: Linux gives each session alike of a core that others use, too.
    done = subprocess.run(command, capture_output=True, check=True, start_new_session=True)
    durations = np.array(json.loads(done.stdout)) / 1e6
    return float(np.median(durations[np.cumsum(durations) > 1000 * warmup_s]))


def pepper_median_ms(config: PepperConfig, model: ModelFile, device: DeviceSpec) -> float:
    """Profile the model as a sweep would."""
    with Bench(model, device, config.measure, None) as bench:
        return bench.profile(LoadConfig(name="idle", percent=0)).metrics["latency_p50_ms"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["squeezenet", "shufflenet", "googlenet", "resnet50", "alexnet", "vgg19"]
    )
    parser.add_argument("--devices", nargs="+", default=["share100", "local"], help="one core, and all of them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="least timed span of each turn")
    parser.add_argument("--samples", type=int, default=20, help="inferences of each turn, at least")
    options = parser.parse_args()
    rows = []
    for device_name, name in itertools.product(options.devices, options.models):
        config = composed(f"model={name}", f"device={device_name}")
        model, device = find_model(config.model), resolve(config.device)
        one_ms = bare_median_ms(model, device, options.seconds, 0.0)
        seconds = max(options.seconds, options.samples * one_ms / 1000)
        config.measure.min_seconds = config.measure.max_seconds = seconds
        config.measure.min_samples = 5
        pairs = []
        for number in range(options.rounds):
            warmup_s = config.measure.warmup_min_seconds
            if number % 2:
                ours = pepper_median_ms(config, model, device)
                bare = bare_median_ms(model, device, seconds, warmup_s)
            else:
                bare = bare_median_ms(model, device, seconds, warmup_s)
                ours = pepper_median_ms(config, model, device)
            pairs.append((ours, bare))
        ratios = sorted(ours / bare for ours, bare in pairs)
        rows.append(
            [
                name,
                device_name,
                f"{median(bare for _, bare in pairs):.3f}",
                f"{median(ours for ours, _ in pairs):.3f}",
                f"{median(ratios):.4f}",
                f"{ratios[0]:.3f} .. {ratios[-1]:.3f}",
            ]
        )
    print_table(
        f"pepper's median against a bare loop, {options.rounds} interleaved rounds of at least {options.seconds:g} s",
        ["model", "device", "bare ms", "pepper ms", "ratio (median)", "range"],
        rows,
    )


if __name__ == "__main__":
    main()
