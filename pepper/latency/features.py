"""From a part and the setting it runs in to one row of numbers; the same for training and for prediction."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pepper.graph import characteristics

Values = npt.NDArray[np.float64]

VERSION = 1  # raise it when a feature keeps its name but changes its meaning

OPTIMIZATIONS = ("disabled", "basic", "extended", "all")


@dataclass(frozen=True)
class Setting:
    """Where and how a part runs. A device is what it measures: its name does not count.

    Attributes:
        device_gflops: Single-precision matrix product on all threads, GFLOP/s; NaN where not calibrated.
        device_gflops_single: The same on one core.
        device_int8_gops: Product of matrices of 8 bits on all threads, billions of operations a second; NaN where it is
            not known: then they are taken to be as fast as single precision.
        device_memory_gbps: Large copy, read and write together, GB/s.
        device_share: CPU time that a core really gives, 0 to 1.
        device_cores: Cores of the device.
        device_l2_bytes: Second-level cache.
        device_l3_bytes: Third-level cache.
        device_cycle_ms: Mean length of the cycle in which a throttled device runs and waits; NaN where it is not known,
            or nothing stops the device.
        device_slice_ms: How long the system's scheduler lets one of two busy programs run on a core; NaN as above.
        device_runtime_gflops: What the execution provider does in large matrix products, GFLOP/s; this and the others
            like it are NaN for the CPU's own, which does what the cores do.
        device_runtime_small_gflops: The same in small ones.
        device_runtime_memory_gbps: Weights read, GB/s.
        device_runtime_launch_ms: One operator more in a model, however small.
        device_runtime_call_ms: An inference of one operator, however small.
        device_runtime_in_gbps: Inputs brought to where it computes, GB/s.
        device_runtime_out_gbps: Outputs brought back.
        threads: onnxruntime's intra-operator threads.
        load_percent: What the neighbour would use of each loaded core if it ran there alone.
        load_cores: How many cores are loaded.
        load_accelerator_percent: For how much of the time a neighbour infers on the accelerator if it is alone there.
        load_period_ms: Mean time from one burst of the neighbour's to the next; NaN where it is not known.
        optimization: Graph optimisation, by position in `OPTIMIZATIONS`.
        parallel: Whether independent operators run side by side.
        spinning: Whether idle threads spin.
    """

    device_gflops: float = np.nan
    device_gflops_single: float = np.nan
    device_int8_gops: float = np.nan
    device_memory_gbps: float = np.nan
    device_share: float = 1.0
    device_cores: float = 1
    device_l2_bytes: float = np.nan
    device_l3_bytes: float = np.nan
    device_cycle_ms: float = np.nan
    device_slice_ms: float = np.nan
    device_runtime_gflops: float = np.nan
    device_runtime_small_gflops: float = np.nan
    device_runtime_memory_gbps: float = np.nan
    device_runtime_launch_ms: float = np.nan
    device_runtime_call_ms: float = np.nan
    device_runtime_in_gbps: float = np.nan
    device_runtime_out_gbps: float = np.nan
    threads: float = 1
    load_percent: float = 0.0
    load_cores: float = 0
    load_accelerator_percent: float = 0.0
    load_period_ms: float = np.nan
    optimization: float = len(OPTIMIZATIONS) - 1
    parallel: float = 0
    spinning: float = 0

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Read a setting from a run's parameters, numbers or text."""
        known: dict[str, float] = {}
        for field in fields(cls):
            value = params.get(field.name)
            if field.name == "optimization" and value in OPTIMIZATIONS:
                known[field.name] = OPTIMIZATIONS.index(str(value))
            elif str(value) in ("True", "False"):
                known[field.name] = float(str(value) == "True")
            elif value is not None and str(value) not in ("None", "nan"):
                known[field.name] = float(value)
        return cls(**known)

    @property
    def slowdown(self) -> float:
        """How many times longer a part takes under the load than idle, if cores are shared fairly.

        A neighbour that alone would use a fraction p of a core leaves 1 - p of it, but never less than
        half: a fair scheduler gives two busy tasks equal time.
        """
        left = max(0.5, 1 - self.load_percent / 100)
        loaded = min(1.0, self.load_cores / max(self.device_cores, 1))
        return 1 / (1 - loaded + loaded * left)


SETTING = tuple(field.name for field in fields(Setting))
FEATURES = (*characteristics.FEATURES, *SETTING, "load_slowdown")
"""The columns of a row: the part's characteristics, then the setting's."""

COLUMN = {name: column for column, name in enumerate(FEATURES)}
RISING = ("load_percent", "load_cores", "load_accelerator_percent", "load_slowdown")
"""Features that never make a part faster when they grow."""


def digest(names: Iterable[str] = FEATURES) -> str:
    """Return a short hash of the feature list and its version: equal digests, equal meaning."""
    return hashlib.sha256(json.dumps([VERSION, *names]).encode()).hexdigest()[:12]


def rows(parts: Values, setting: Setting) -> Values:
    """Describe parts in one setting.

    Args:
        parts: Their characteristics, shape (P, len(characteristics.FEATURES)).
        setting: Where and how they run.

    Returns:
        An array of shape (P, len(FEATURES)).
    """
    where = np.array([*asdict(setting).values(), setting.slowdown], float)
    return np.hstack((np.asarray(parts, float), np.broadcast_to(where, (len(parts), len(where)))))
