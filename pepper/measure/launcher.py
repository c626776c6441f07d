"""Runs a model on a device in a fresh worker process and profiles it under one load after another."""

import time
from contextlib import ExitStack
from dataclasses import asdict
from statistics import median
from types import TracebackType
from typing import Any, Self

from pepper.config import LoadConfig, MeasureConfig
from pepper.devices.device import DeviceSpec
from pepper.devices.energy import COMMAND
from pepper.devices.pace import KernelTime
from pepper.devices.protocol import Arrays
from pepper.devices.providers.choice import CPU
from pepper.errors import HungError, MeasureError
from pepper.graph.inputs import packed
from pepper.graph.model import ModelFile
from pepper.hosts.local import here
from pepper.measure.load import Usage, accelerator_percent_between, loaded_cores, percent_between
from pepper.measure.loads import start_load
from pepper.measure.pace import Paces
from pepper.measure.profile import Profile
from pepper.measure.statistics import summarise
from pepper.measure.validity import drift_percent, invalid_reasons

SHARE_SECONDS = 0.04
SETTLE_SECONDS = 0.02  # a new load's first bursts come in step
FIRST_TURNS, MOST_TURNS, TURNS = 25, 50, 5
"""A device that gives each turn to one of its programs gives, of n, one too many or too few: after so many first, and
then each time so many more, a load is looked at, until no more could take it beyond its limit."""
OPERATOR_RUNS = 10
ACCELERATOR = ("clock_mhz", "temperature_c", "power_w")
"""Of an accelerator's state after the timing what is a figure of the run."""


class Bench:
    """A model opened on a device of this host; serves every load of that pair from one worker.

    Args:
        model: The model.
        device: The device.
        measure: When timing starts and stops.
        generator: Which load generator to use; None where every load is idle.

    Raises:
        MeasureError: On entering: the worker refused the model, crashed or hung.
    """

    def __init__(self, model: ModelFile, device: DeviceSpec, measure: MeasureConfig, generator: str | None) -> None:
        self._host = here()
        self._model = model
        self._spec = device
        self._measure = measure
        self._generator = generator

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._idle = self._host.accelerator(self._spec)
            self._host.energy(self._spec)  # while nothing runs it looks what that takes
            self._device = stack.enter_context(self._host.devices([self._spec])[0])
            self._worker = self._device.start("pepper.measure.worker")
            self._facts = self._ask("facts")
            self._worker.confine()
            self._share = self._measure_share() if self._spec.share < 1 else 1.0
            inputs, values = packed(self._model.inputs)
            self._opened = self._ask(
                "open",
                values,
                path=str(self._model.file),
                provider=self._spec.choice.to_json(),
                threads=self._spec.threads,
                inputs=inputs,
                seed=self._measure.seed,
                binding=self._measure.binding,
                **vars(self._measure.session),
            )
            self._assignment = self._opened.pop("assignment")
            self._load = None
            if self._generator is not None:
                self._load = start_load(self._generator, self._device)
                stack.callback(self._load.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _ask(self, op: str, given: Arrays | None = None, **fields: Any) -> dict[str, Any]:
        limit_s = self._measure.time_limit_seconds
        try:
            result, arrays = self._worker.request(op, timeout_s=limit_s, arrays=given, **fields)
        except HungError as error:
            raise HungError(f"{error}; raise measure.time_limit_seconds if the model is that slow") from error
        return {**result, **arrays}

    def _measure_share(self) -> float:
        """Return the fraction of a core's time that a busy loop gets: the median of three short trials."""
        return float(median(self._ask("share", seconds=SHARE_SECONDS)["share"] for _ in range(3)))

    def profile(self, load: LoadConfig) -> Profile:
        """Measure the model under this load.

        Raises:
            MeasureError: The worker crashed or hung, or the load could not be started.
        """
        started_s = time.time()
        measure, spec = self._measure, self._spec
        cores = loaded_cores(load, len(spec.cores))
        kernel = [self._kernel_time()]
        try:
            alone = self._set_load(load, cores)
            before = {**self._host.state(), "accelerator": self._host.accelerator(spec)}
            warm_up = self._ask(
                "warm_up", min_seconds=measure.warmup_min_seconds, max_seconds=measure.warmup_max_seconds
            )
            meter = self._host.meter([spec])
            used_before = self._usage()
            energy = self._host.energy(spec)
            span = self._ask(
                "time",
                min_seconds=measure.min_seconds,
                min_samples=measure.min_samples,
                ci_percent=measure.ci_percent,
                max_seconds=measure.max_seconds,
                max_samples=measure.max_samples,
            )
            used_after = self._usage()
            energy_j, metered = energy.read(len(span["latency_ns"]))
            found = meter.read()[spec.name]
            after = {**self._host.state(), "accelerator": self._host.accelerator(spec)}
        finally:
            if self._load is not None and self._worker.alive:
                self._load.set(LoadConfig(name="idle", percent=0))
        kernel.append(self._kernel_time())
        paces = Paces(
            [KernelTime(*each["kernel"]) for each in kernel if "kernel" in each],
            [KernelTime(*each) for each in span.pop("kernel_us").tolist()],
            loaded=not load.is_silent,
            why=next((each["why"] for each in kernel if "why" in each), ""),
        )
        samples = {"start_ns": span.pop("start_ns"), "latency_ns": span.pop("latency_ns")}
        latency_ms = samples["latency_ns"] / 1e6
        wall_s = used_after.clock_s - used_before.clock_s
        load_s = used_after.cpu_s + used_after.feeding_s - used_before.cpu_s - used_before.feeding_s
        capacity_s = wall_s * len(spec.cores)
        used_s = span["cpu_s"] + span.pop("pace_cpu_s") + load_s
        share, foreign_s = self._share, 0.0
        if spec.threads == len(spec.cores) == 1 and spec.choice.name == CPU:
            # A worker with one thread never sleeps, unless it waits for an accelerator: what it and the load used is
            # what the device really gave. That is exact, where the kernel's figures for a core are sampled at its tick,
            # in step with the throttle.
            if spec.share < 1:
                share = used_s / capacity_s
            else:
                foreign_s = capacity_s - used_s
        elif spec.share == 1:
            foreign_s = found.busy_s - used_s
        metrics = {
            **summarise(latency_ms),
            **self._opened,
            **warm_up,
            **span,
            "throughput_per_s": len(latency_ms) / span["timed_s"],
            "cpu_per_inference_ms": 1000 * span["cpu_s"] / len(latency_ms),
            "feeding_percent": 100 * span["cpu_s"] / span["timed_s"],
            "drift_percent": drift_percent(latency_ms),
            "share_before": self._share,
            "share_achieved": share,
            **alone,
            "load_timed_percent": percent_between(used_before, used_after, spec.share, cores) if cores else 0.0,
            "device_busy_percent": 100 * used_s / (capacity_s * spec.share),
            "foreign_percent": 100 * foreign_s / capacity_s,
            "steal_percent": 100 * found.stolen_s / capacity_s,
            "throttled_periods": found.throttled_periods,
            **paces.metrics(),
            **energy_j,
        }
        if load.accelerator_percent:
            metrics["load_accelerator_timed_percent"] = accelerator_percent_between(used_before, used_after)
        notes: list[str] = []
        if gpu := after["accelerator"]:
            metrics |= {f"accelerator_{name}": gpu[name] for name in ACCELERATOR if name in gpu}
            if "memory_used_bytes" in gpu and "memory_used_bytes" in self._idle:
                metrics["accelerator_memory_bytes"] = gpu["memory_used_bytes"] - self._idle["memory_used_bytes"]
            notes += [f"the accelerator's clock was held down: {', '.join(gpu['held'])}"] if gpu.get("held") else []
        if metered.startswith(f"unmeasured: {COMMAND}"):
            notes.append(f"energy {metered}")
        if paces.why:
            notes.append(f"pace: not measured ({paces.why})")
        if unknown := dict(spec.found).get("options_unknown"):
            notes.append(f"device.options: {spec.provider} has no {unknown}, which had no effect")
        if self._assignment:
            metrics["operators_on_cpu"] = len(self._assignment["elsewhere"])
            notes += filter(None, [self._assignment["said"]])
        metrics["latency_ci_percent"] = (
            50 * (metrics["latency_p50_high_ms"] - metrics["latency_p50_low_ms"]) / metrics["latency_p50_ms"]
        )
        reasons = invalid_reasons(
            metrics,
            measure,
            requested_load=load,
            requested_share=spec.share,
            before=before,
            after=after,
        )
        return Profile(
            status="FINISHED",
            started_s=started_s,
            ended_s=time.time(),
            verdict="INVALID" if reasons else "VALID",
            reasons=reasons,
            notes=notes,
            metrics={name: float(value) for name, value in metrics.items()},
            samples=samples,
            environment={
                "host": self._host.facts(),
                "worker": self._facts,
                "provider": {**spec.choice.to_json(), **dict(spec.found), "assignment": self._assignment},
                "throttle_method": self._device.throttle_method,
                "before": before,
                "after": after,
                "energy": metered,
                "reference_kernel": asdict(paces),
            },
            operators=self._ask("operators", runs=OPERATOR_RUNS)["profile"] if measure.operators else None,
        )

    def _kernel_time(self) -> dict[str, Any]:
        """Return what the reference kernel takes of the device's cores now; nothing where they do not compute."""
        return self._ask("pace") if self._spec.choice.name == CPU else {}

    def _usage(self) -> Usage:
        return self._load.usage() if self._load else Usage(0.0, time.perf_counter())

    def _set_load(self, load: LoadConfig, cores: int) -> dict[str, float]:
        """Start the load and return what it uses of the device while it runs there alone."""
        if load.is_silent:
            return {"load_alone_percent": 0.0}
        if self._load is None:
            raise MeasureError("no load generator was started for this device")
        self._load.set(load)
        self._worker.pause()
        try:
            time.sleep(SETTLE_SECONDS)
            before = self._load.usage()
            turn_s = (self._device.cycle_ms or 0.0) / 1000
            time.sleep(max(self._measure.verify_load_seconds, FIRST_TURNS * turn_s, self._load.least_span_s))
            after = self._load.usage()
            alone = {"load_alone_percent": percent_between(before, after, self._spec.share, cores) if cores else 0.0}
            while turn_s and cores and (turns := (after.clock_s - before.clock_s) / turn_s) < MOST_TURNS:
                missed = abs(alone["load_alone_percent"] - load.percent)
                if missed + 100 / turns <= self._measure.limits.load_points:
                    break
                time.sleep(TURNS * turn_s)
                after = self._load.usage()
                alone["load_alone_percent"] = percent_between(before, after, self._spec.share, cores)
            if load.accelerator_percent:
                alone["load_accelerator_alone_percent"] = accelerator_percent_between(before, after)
            return alone
        finally:
            self._worker.confine()


def failed(error: Exception, started_s: float) -> Profile:
    """Return the profile of a cell that could not be measured, with its reason in one line."""
    reason = " ".join(str(error).split())
    return Profile(status="FAILED", started_s=started_s, ended_s=time.time(), reasons=[reason])


def killed(started_s: float) -> Profile:
    """Return the profile of a cell that was interrupted."""
    return Profile(status="KILLED", started_s=started_s, ended_s=time.time(), reasons=["interrupted"])
