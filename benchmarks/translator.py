"""Write down a translator of recurrent layers as a device-placement problem, for benchmarks.device_placement.

An encoder, and a decoder that attends to it; each layer also gives a state that nobody reads. Times and costs are
drawn. The format is that of the published workloads.

    python -m benchmarks.translator --out DIRECTORY --seeds 1 2
    python -m benchmarks.device_placement --workloads DIRECTORY
"""

import argparse
import json
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

ACCELERATORS = 6


class Translator:
    """The problem in the making.

    Args:
        seed: Of times and costs.
        layers: Of the encoder, and of the decoder.
        state_ms: Time of a state that nobody reads.
    """

    def __init__(self, seed: int, layers: int, state_ms: float) -> None:
        self._random, self._numbers, self._state_ms = Random(seed), count(1), state_ms
        self._nodes: list[dict[str, Any]] = []
        self._edges: list[dict[str, Any]] = []
        self._moved_ms = self._random.uniform(0.4, 1.2)
        encoded = self._embedded()
        for number in range(layers):
            encoded = self._layer([encoded], 2.5 if number else 5.0, residual=number > 1)
        decoded = self._layer([self._embedded()], 2.5, residual=False)
        context = self._node(1.5, decoded, encoded)
        for number in range(layers - 1):
            decoded = self._layer([decoded, context], 3.0, residual=number > 0)
        self._node(5.0, decoded)

    def workload(self) -> dict[str, Any]:
        """Return it, JSON-able."""
        limits = {"maxSizePerFPGA": 16e9, "maxFPGAs": ACCELERATORS, "maxCPUs": 1}
        return {**limits, "nodes": self._nodes, "edges": self._edges}

    def _embedded(self) -> int:
        return self._node(0.1, self._node(0.5, self._node(0.0)))

    def _layer(self, inputs: list[int], least_ms: float, residual: bool) -> int:
        """Add a layer, with its state and a dropout behind it; return its result."""
        read = inputs[0] if len(inputs) == 1 else self._node(0.05, *inputs)
        layer = self._node(least_ms * self._random.uniform(1.0, 1.6), read)
        self._node(self._state_ms, layer)
        dropped = self._node(0.1 * self._random.uniform(0.5, 2.0), self._node(0.0, layer))
        return self._node(0.05, dropped, inputs[0]) if residual else dropped

    def _node(self, accelerator_ms: float, *read: int) -> int:
        number = next(self._numbers)
        times = {"fpgaLatency": accelerator_ms, "cpuLatency": 10 * accelerator_ms}
        self._nodes.append({"id": number, "supportedOnFpga": 1, "size": 1e7, **times})
        self._edges += [{"sourceId": each, "destId": number, "cost": self._moved_ms} for each in read]
        return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="a problem each (1 2)")
    parser.add_argument("--layers", type=int, default=8, help="of encoder and decoder, each (8)")
    parser.add_argument("--state-ms", type=float, default=0.0, help="time of a state that nobody reads (0)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        made = Translator(seed, options.layers, options.state_ms).workload()
        (options.out / f"throughput_translator{seed}.json").write_text(json.dumps(made))


if __name__ == "__main__":
    main()
