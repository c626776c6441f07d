"""The timed worker: ``python -m pepper.measure.worker``; imports numpy and onnxruntime only."""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from pepper.devices.memory import peak_memory_bytes
from pepper.devices.pace import KernelTime, ReferenceKernel
from pepper.devices.protocol import serve
from pepper.devices.providers.binding import bound_to_device
from pepper.devices.providers.faults import meaning
from pepper.devices.providers.opening import open_checked
from pepper.devices.providers.options import session_options
from pepper.devices.providers.registry import provider_named
from pepper.devices.spin import cpu_fraction
from pepper.graph.inputs import draw_inputs, drawn_hint, unpacked
from pepper.measure.statistics import median_interval

PACE_EVERY_S, PACE_EVERY = 1.0, 50  # timing and inferences between two looks at the pace, at least
PACE_LOOKS, PACE_SLOW = 4, 1.1  # looks at once where the first is so much slower than the fastest so far
STEADY = 0.95  # warm-up is over once the latest third is no faster than this times the third before it


class Worker:
    """One model on one device; answers the parent's requests."""

    _kernel: ReferenceKernel | None = None
    _fastest_us = float("inf")

    def facts(self) -> dict[str, Any]:
        """Return the versions and the surroundings of the process that times."""
        return {
            "onnxruntime": ort.__version__,
            "numpy": np.__version__,
            "affinity": sorted(os.sched_getaffinity(0)),
            "providers": ort.get_available_providers(),
        }

    def share(self, seconds: float) -> dict[str, Any]:
        """Return the fraction of wall time in which a busy loop really ran here."""
        return {"share": cpu_fraction(seconds)}

    def pace(self) -> dict[str, Any]:
        """Return what the reference kernel takes here now, or why that cannot be told; times it from then on.

        Where it is slow it is timed again: what takes the core for a few milliseconds is no change of its speed.
        """
        try:
            self._kernel = self._kernel or ReferenceKernel()
            found = self._kernel.time()
            for _ in range(PACE_LOOKS - 1):
                if found.arithmetic_us <= PACE_SLOW * self._fastest_us:
                    break
                found = KernelTime(*map(min, found, self._kernel.time()))
            self._fastest_us = min(self._fastest_us, found.arithmetic_us)
            return {"kernel": found}
        except OSError as error:
            self._kernel = None
            return {"why": error.strerror or str(error)}

    def open(
        self,
        path: str,
        provider: Mapping[str, Any],
        threads: int,
        optimization: str,
        spinning: bool,
        parallel: bool,
        inputs: Sequence[Mapping[str, Any]],
        seed: int,
        binding: str = "host",
        **values: np.ndarray[Any, Any],
    ) -> dict[str, Any]:
        """Create the session and run it once; returns both times in ms, and which operators the provider did not take.

        With the binding ``device`` or ``graph``, inferences are timed with inputs and outputs there, transfers apart.
        ``inputs`` and ``values`` are what :func:`pepper.graph.inputs.packed` makes.
        """
        self._path, self._provider = path, provider_named(**provider)
        self._options = session_options(threads, optimization, spinning, parallel)
        start = time.perf_counter_ns()
        session, assignment = open_checked(self._provider, path, self._options)
        created = time.perf_counter_ns()
        specs = unpacked(inputs, values)
        self._inputs = draw_inputs(specs, seed)
        ready = time.perf_counter_ns()
        try:
            self._run = self._provider.bind(session, self._inputs)
            outputs = self._run()
        except Exception as error:  # onnxruntime's own exceptions have no common base
            if told := meaning(error, self._provider.choice):
                raise RuntimeError(told) from error
            reason = " ".join(str(error).split())[:300]
            raise RuntimeError(f"onnxruntime cannot run it: {reason}{drawn_hint(specs)}") from error
        first = time.perf_counter_ns()
        transfers = {}
        if binding != "host":
            if binding == "graph":
                del session, self._run  # a device may have no memory for two
                session = self._capturing(provider)
            bound = bound_to_device(session, self._inputs, outputs)
            self._run = bound.run
            transfers = {"input_transfer_ms": bound.in_ms, "output_transfer_ms": bound.out_ms}
        return {
            **transfers,
            "session_create_ms": (created - start) / 1e6,
            "first_inference_ms": (first - ready) / 1e6,
            "input_bytes": sum(value.nbytes for value in self._inputs.values()),
            "output_bytes": sum(getattr(value, "nbytes", 0) for value in outputs),
            "assignment": assignment and assignment.to_json(),
        }

    def _capturing(self, provider: Mapping[str, Any]) -> ort.InferenceSession:
        """Return a session whose first bound run is captured, and repeated from then on.

        Raises:
            ValueError: The provider cannot.
        """
        option = self._provider.graph_option
        if option is None:
            raise ValueError(
                f"measure.binding=graph: {self._provider.name} captures no inference; give measure.binding=device or"
                " host"
            )
        capturing = provider_named(**{**provider, "options": {**provider["options"], option: "1"}})
        return open_checked(capturing, self._path, self._options)[0]

    def warm_up(self, min_seconds: float, max_seconds: float) -> dict[str, Any]:
        """Run until the latency no longer falls."""
        run, clock = self._run, time.perf_counter
        durations: list[float] = []
        start = now = clock()
        while now - start < max_seconds:
            run()
            before, now = now, clock()
            durations.append(now - before)
            third = len(durations) // 3
            if now - start >= min_seconds and third >= 2:
                latest, earlier = np.median(durations[-third:]), np.median(durations[-2 * third : -third])
                if latest >= STEADY * earlier:
                    break
        return {"warmup_samples": len(durations), "warmup_s": now - start}

    def time(
        self, min_seconds: float, min_samples: int, ci_percent: float, max_seconds: float, max_samples: int
    ) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        """Time inferences until the stop rule is met (see :class:`pepper.config.MeasureConfig`).

        Once in a while the reference kernel runs instead, and one inference that is not timed, since the kernel has
        taken its caches.

        Returns:
            CPU and wall seconds of the span without these, and the CPU seconds of these; peak memory of the process so
            far; and, for each inference, its start since the span's start and its duration, both in ns; what the
            reference kernel's halves took each time, in microseconds, shape (looks, 2).
        """
        run, clock = self._run, time.perf_counter_ns
        starts: list[int] = []
        durations: list[int] = []
        paces: list[KernelTime] = []
        away_ns, away_cpu_s, pace_at_s = 0, 0.0, PACE_EVERY_S
        check_at = min_samples
        cpu_start = time.process_time()
        span_start = clock()
        while True:
            before = clock()
            run()
            after = clock()
            starts.append(before - span_start)
            durations.append(after - before)
            count = len(durations)
            elapsed = (after - span_start - away_ns) / 1e9
            if self._kernel and elapsed > pace_at_s:
                cpu_s = time.process_time()
                if "kernel" in (found := self.pace()):
                    paces.append(found["kernel"])
                    run()
                away_cpu_s += time.process_time() - cpu_s
                away_ns += clock() - after
                pace_at_s = elapsed + max(PACE_EVERY_S, PACE_EVERY * durations[-1] / 1e9)
            if count < check_at:
                continue
            if elapsed >= max_seconds or count >= max_samples:
                break
            if elapsed >= min_seconds:
                low, high = median_interval(np.array(durations))
                if (high - low) / 2 <= ci_percent / 100 * float(np.median(durations)):
                    break
            # A check costs a sort: make it rare as samples grow, but do not run past a cap.
            left = min(max_samples - count, int((max_seconds - elapsed) * count / elapsed))
            check_at = count + max(1, min(count // 8, left))
        span = {
            "timed_s": (clock() - span_start - away_ns) / 1e9,
            "cpu_s": time.process_time() - cpu_start - away_cpu_s,
            "pace_cpu_s": away_cpu_s,
            "peak_memory_bytes": peak_memory_bytes(),
        }
        return span, {
            "start_ns": np.array(starts),
            "latency_ns": np.array(durations),
            "kernel_us": np.reshape(np.array(paces, float), (-1, 2)),
        }

    def operators(self, runs: int) -> dict[str, Any]:
        """Profile each operator in a session of its own; returns onnxruntime's profile (JSON text).

        The profiler distorts the latency, so this pass shares nothing with the timing.
        """
        options = self._options
        with tempfile.TemporaryDirectory() as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "operators")
            session = self._provider.open(self._path, options)
            run = self._provider.bind(session, self._inputs)
            for _ in range(runs):
                run()
            profile = Path(session.end_profiling()).read_text()
            options.enable_profiling = False
        return {"profile": profile, "runs": runs}


if __name__ == "__main__":
    worker = Worker()
    serve({name: getattr(worker, name) for name in ("facts", "share", "pace", "open", "warm_up", "time", "operators")})
