"""The load generator: ``python -m pepper.measure.generator``; keeps one core busy for part of each period.

Busy time is CPU time, not wall time: beside an inference, or inside a throttled device, the generator
still asks for the work that was requested, as a real neighbour would.
"""

import random
import time
from typing import Any

from pepper.devices.protocol import Handler, answer, connect

PERIOD_RANGE = (0.5, 1.5)  # of the mean length
LONGEST_BACKLOG_S = 0.02  # work that waits longer is dropped
LONGEST_BURST_S = 0.001  # then it looks whether the parent has spoken


class Generator:
    """Works off a debt of CPU time that grows at the requested rate, in bursts of about one period's work."""

    def __init__(self) -> None:
        self.fraction = 0.0
        self.period_s = 0.0
        self._due_s = 0.0
        self._clock_s = self._cpu_s = 0.0
        self._rng = random.Random(0)

    def set(self, fraction: float, period_ms: float) -> None:
        """Use this fraction of one core's time from now on: 0 is silence, 1 all that it gets."""
        self.fraction, self.period_s = fraction, period_ms / 1000
        self._due_s = 0.0
        self._clock_s, self._cpu_s = time.perf_counter(), time.process_time()

    def usage(self) -> dict[str, Any]:
        """Return CPU time used so far, in seconds."""
        return {"cpu_s": time.process_time()}

    def work(self) -> float:
        """Do what is due; return how long to wait until a period's work is due again, in seconds."""
        clock_s, cpu_s = time.perf_counter(), time.process_time()
        # All CPU time counts, wake-ups too, so that the average is exact.
        self._due_s += self.fraction * (clock_s - self._clock_s) - (cpu_s - self._cpu_s)
        self._due_s = min(self._due_s, self.fraction * LONGEST_BACKLOG_S)
        self._clock_s, self._cpu_s = clock_s, cpu_s
        if self.fraction == 1:
            self._due_s = LONGEST_BURST_S
        end = cpu_s + self._due_s
        while time.process_time() < end:
            pass
        if self.fraction == 1:
            return 0.0
        # Periods of constant length would lock in step with the inferences and bias their median.
        period_s = self.period_s * self._rng.uniform(*PERIOD_RANGE)
        missing_s = self.fraction * period_s - max(0.0, self._due_s - (time.process_time() - cpu_s))
        return max(0.0, missing_s / self.fraction - (time.perf_counter() - clock_s))


def main() -> None:
    """Alternate between bursts and waiting; a request ends the waiting."""
    generator = Generator()
    connection = connect()
    handlers: dict[str, Handler] = {"set": generator.set, "usage": generator.usage}
    while True:
        wait_s = generator.work() if generator.fraction else None  # silent: block until the parent speaks
        if connection.poll(wait_s) and not answer(connection, handlers):
            return


if __name__ == "__main__":
    main()
