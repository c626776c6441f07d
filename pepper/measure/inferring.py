"""What infers on a device's accelerator for part of the time: ``python -m pepper.measure.inferring``."""

import random
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from pepper.devices.protocol import Handler, answer, connect
from pepper.devices.providers.opening import open_checked
from pepper.devices.providers.options import session_options
from pepper.devices.providers.provider import Run
from pepper.devices.providers.registry import provider_named
from pepper.devices.providers.small_models import products

PRODUCTS = 8
WIDTHS = (64, 128, 256, 512, 1024, 2048)
"""Of the matrices: the first counts that keeps the accelerator busy, so that none is asked for more than it can do."""
LEAST_S, LEAST_GROWTH = 0.001, 2.0  # what counts as busy: so long, and so much longer than what does next to nothing
TRIALS = 8
PERIOD_RANGE = (0.5, 1.5)  # of the mean length
LONGEST_BACKLOG_S = 0.1  # work that waits longer is dropped


class Inferring:
    """Works off a debt of inferences that grows at the requested rate, each counted as what it takes alone: beside
    others it still asks for the work that was requested, as a real neighbour would."""

    def __init__(self) -> None:
        self.fraction = 0.0
        self.period_s = 0.0
        self._run: Run | None = None
        self._alone_s = self._due_s = self._clock_s = self._inferring_s = 0.0
        self._rng = random.Random(0)

    def open(self, provider: dict[str, Any], threads: int) -> dict[str, Any]:
        """Open what is run, a chain of matrix products, which every provider has; return how long it takes."""
        found = provider_named(**provider)
        least_s = 0.0
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "neighbour.onnx"
            for width in WIDTHS:
                file.write_bytes(products(width, *[width] * (PRODUCTS + 1)))
                options = session_options(threads, "all", spinning=False, parallel=False)
                session, _ = open_checked(found, str(file), options)
                self._run = found.bind(session, {"input": np.ones((width, width), np.float32)})
                self._run()
                self._alone_s = fmean(_seconds(self._run) for _ in range(TRIALS))
                least_s = least_s or self._alone_s
                if self._alone_s >= max(LEAST_S, LEAST_GROWTH * least_s):
                    break
        return {"inference_s": self._alone_s}

    def set(self, fraction: float, period_ms: float) -> None:
        """Infer for this fraction of the time from now on: 0 is silence, 1 one inference after another."""
        self.fraction, self.period_s = fraction, period_ms / 1000
        self._due_s, self._clock_s = 0.0, time.perf_counter()

    def usage(self) -> dict[str, Any]:
        """Return for how long it has inferred so far, and what CPU time it has used, in seconds; and the clock."""
        return {"inferring_s": self._inferring_s, "cpu_s": time.process_time(), "clock_s": time.perf_counter()}

    def work(self) -> float:
        """Run one inference if it is due; return how long to wait until the next one is, in seconds."""
        now_s = time.perf_counter()
        self._due_s = min(self._due_s + self.fraction * (now_s - self._clock_s), LONGEST_BACKLOG_S)
        self._clock_s = now_s
        if self._run and (self._due_s > 0 or self.fraction == 1):
            self._run()
            self._inferring_s += time.perf_counter() - now_s
            self._due_s -= self._alone_s
        if self.fraction == 1 or self._due_s > 0:
            return 0.0
        # Periods of constant length would lock in step with the inferences and bias their median.
        return self.period_s * self._rng.uniform(*PERIOD_RANGE) - self._due_s / self.fraction


def _seconds(run: Run) -> float:
    start_s = time.perf_counter()
    run()
    return time.perf_counter() - start_s


def main() -> None:
    """Alternate between inferences and waiting; a request ends the waiting."""
    inferring = Inferring()
    connection = connect()
    handlers: dict[str, Handler] = {name: getattr(inferring, name) for name in ("open", "set", "usage")}
    while True:
        wait_s = inferring.work() if inferring.fraction else None  # silent: block until the parent speaks
        if connection.poll(wait_s) and not answer(connection, handlers):
            return


if __name__ == "__main__":
    main()
