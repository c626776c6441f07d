"""What it costs a device to take up a request and to hand on the result, besides the inference.

A stage of a pipeline receives tensors, wakes up, and sends others. How much work that is was measured with parts
that compute almost nothing (``benchmarks/stage_costs.py``), and is kept in units of the device's own calibrated
speed, as the roofline's overheads are.
"""

import numpy as np

from pepper.latency.features import Setting, Values
from pepper.latency.roofline import WHOLE

COLD_MS = 0.3  # what the first work after a pause takes longer: a model's weights have filled the caches
_FLOP = 2.0e7  # a message's fixed work is the time of this much arithmetic on one core
_PASSES = 3  # a byte received is the work of so many bytes moved in a large copy
_WAKE_MS = 0.05  # until a sleeping process runs
_SPREAD = 1 + 1 / 12  # mean of the squared length of a cycle over its mean squared: lengths are uniform, +-50 %


def handling_ms(setting: Setting, received_bytes: Values) -> Values:
    """Return how long the device works on messages for each request: its share and load included.

    Args:
        setting: The device and its load.
        received_bytes: Bytes of the tensors that come in, any shape.
    """
    fixed = _FLOP / _speed(setting.device_gflops_single)
    moved = _PASSES * np.asarray(received_bytes, float) / _speed(setting.device_memory_gbps)
    return np.asarray((fixed + moved) / 1e6 * setting.slowdown)


def wait_ms(setting: Setting) -> float:
    """Return how long a request that comes at any time waits until the idle device works on it at full pace.

    A device that runs in turns, which begin anew every cycle and last `share` of it, is away for ``1 - share`` of
    the time, and whoever comes then waits for half of an absence on average (the inspection paradox: longer ones
    are met more often). A neighbour takes some of the turns, so that there are fewer of them.
    """
    turns = 1 / setting.slowdown
    away = 1 - turns * setting.device_share if setting.device_share < WHOLE else 0.0
    cycle_ms = np.nan_to_num(setting.device_cycle_ms / turns)
    return float(_WAKE_MS + COLD_MS + away**2 * cycle_ms * _SPREAD / 2)


def _speed(giga: float) -> float:
    return giga if np.isfinite(giga) else 1.0
