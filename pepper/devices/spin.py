"""A busy loop that watches the clock: what share of a core does a process really get?"""

import math
import time
from statistics import median

PAUSE_S = 0.0004  # two readings of the clock further apart than this: the process was not running


def run_ms(seconds: float) -> float:
    """Keep one core busy for ``seconds``; return how long it ran at a time: the median, or NaN if it never stopped."""
    start = previous = began = time.perf_counter()
    runs = []
    while previous - start < seconds:
        now = time.perf_counter()
        if now - previous > PAUSE_S:
            runs.append(1000 * (previous - began))
            began = now
        previous = now
    return median(runs[1:]) if len(runs) > 1 else math.nan


def cpu_fraction(seconds: float) -> float:
    """Keep one core busy for ``seconds`` of wall time and return the fraction that was CPU time.

    Where the process is stopped and resumed, the fraction is taken from the end of the first pause to the
    end of the last, so that the span's ends do not fall at random points of the throttle's cycle.
    """
    start = previous = time.perf_counter()
    pauses = []
    cpu_start = time.thread_time()
    while previous - start < seconds:
        now = time.perf_counter()
        if now - previous > PAUSE_S:
            pauses.append((now, time.thread_time()))
        previous = now
    (first, cpu_first), (last, cpu_last) = (
        (pauses[0], pauses[-1]) if len(pauses) >= 3 else ((start, cpu_start), (previous, time.thread_time()))
    )
    return (cpu_last - cpu_first) / (last - first)
