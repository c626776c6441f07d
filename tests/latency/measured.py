"""Rows as if measured: physical latencies of random parts, with noise."""

import numpy as np

from pepper.graph import characteristics
from pepper.graph.characteristics import FEATURES as PART
from pepper.latency.dataset import Rows
from pepper.latency.features import Setting, Values, rows

DEVICES = {"fast": 100.0, "slow": 25.0}
LOADS = {"idle": 0.0, "cpu25": 25.0, "cpu50": 50.0}


def random_parts(count: int, seed: int = 0) -> Values:
    """Characteristics of parts that only convolve and activate, shape (count, features)."""
    rng = np.random.default_rng(seed)
    parts = np.zeros((count, len(PART)))
    macs, moved, operators = 10 ** rng.uniform(6, 9, count), 10 ** rng.uniform(5, 7, count), rng.integers(1, 60, count)
    for name, values in {
        "operators": operators,
        "operators_rectifier": operators,
        "depth": operators,
        "macs": macs,
        "macs_conv_dense_k3": macs,
        "read_bytes": moved * 0.6,
        "written_bytes": moved * 0.4,
        "bytes_activation": moved,
        "conv_layers": operators // 2,
        "total_parameters": macs / 100,
        "input_bytes": moved / 10,
    }.items():
        parts[:, characteristics.FEATURES.index(name)] = values
    return parts


def setting(gflops: float = 100.0, load: float = 0.0) -> Setting:
    return Setting(
        device_gflops=gflops,
        device_gflops_single=gflops,
        device_memory_gbps=gflops / 5,
        load_percent=load,
        load_cores=float(load > 0),
    )


def measured(models: int = 6, parts: int = 4, noise: float = 0.02, seed: int = 0, twice: bool = False) -> Rows:
    """Each part of each model on each device under each load; efficiency 60 %, 20 microseconds an operator."""
    rng = np.random.default_rng(seed)
    table = random_parts(models * parts, seed)
    columns = {name: characteristics.FEATURES.index(name) for name in ("macs", "bytes_activation", "operators")}
    features, names = [], []
    for _ in range(1 + twice):
        for device, gflops in DEVICES.items():
            for load, percent in LOADS.items():
                features.append(rows(table, setting(gflops, percent)))
                names += [(f"model{i // parts}", f"part{i}", device, load) for i in range(len(table))]
    stacked = np.vstack(features)
    gflops_of = np.array([DEVICES[name[2]] for name in names])
    slowdown = np.array([1 / max(0.5, 1 - LOADS[name[3]] / 100) for name in names])
    work = stacked[:, columns["macs"]] * 2 / 0.6 / gflops_of / 1e6
    work += stacked[:, columns["bytes_activation"]] / (gflops_of / 5) / 1e6
    work += stacked[:, columns["operators"]] * 0.02 * 100 / gflops_of
    p50_ms = work * slowdown * np.exp(noise * rng.standard_normal(len(work)))
    model, part, device_name, load_name = (np.array(column) for column in zip(*names, strict=True))
    return Rows(stacked, p50_ms, p50_ms * 1.1, model, part, device_name, load_name, model)
