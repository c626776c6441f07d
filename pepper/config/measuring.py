"""What is measured: models, devices, loads, how, and sweeps over them."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pepper import additions
from pepper.config.checks import MISSING, by_name, within
from pepper.config.hosting import IMAGINED, check_host
from pepper.errors import ConfigError, key_of, nearest

KINDS = ("local", "emulated")
"""Kinds of devices that pepper has itself."""

GENERATORS = ("pepper", "stress-ng")
"""Generators of loads that pepper has itself."""


@dataclass
class ModelConfig:
    """An ONNX model and the sizes of its dynamic dimensions.

    Attributes:
        name: How runs and tables call it; taken from the file's name where it is not given.
        path: The ``.onnx`` file, ``pkg://package/file`` inside an installed Python package, or
            ``variant://number`` or ``variant://family-number``, a generated architecture.
        shapes: Whole shapes by name: of inputs, and of inner tensors and outputs that no rule can infer.
        dims: Sizes by symbolic dimension name.
        batch: Size of a dynamic first dimension (1 if not given).
        inputs: Values by input name: a number, text or truth value for all of it, a list of its shape, or
            ``{low: 0, high: 30000}`` to draw from. Others are drawn by type, shape and seed.
        inputs_file: A file of arrays (``.npz``) by input name; ``inputs`` wins over it.
        variant: Number of the generated architecture, or its family's name and number (``lstm-0``), where the path
            speaks of it.
        part: Number of one part of a space-filling choice; None is the whole model.
        part_seed: Seed of that choice.
        grid: Choose parts otherwise: cut the model into this many elements of nearly equal MACs; the parts are all
            runs of consecutive elements, longest first (number 0 is the whole).
    """

    path: str = MISSING
    name: str | None = None
    shapes: dict[str, list[int]] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    batch: int | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    inputs_file: str | None = None
    variant: str | None = None
    part: int | None = None
    part_seed: int = 0
    grid: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            self.name = Path(self.path).stem
        if not self.name.isprintable():  # it stands in tables and in single lines
            raise ConfigError(f"model.name={self.name!r}: holds more than printable characters; give model.name=...")
        within("model.batch", self.batch, 1)
        within("model.part", self.part, 0)
        within("model.grid", self.grid, 1)
        within("model.part_seed", self.part_seed, 0)
        for key in ("shapes", "dims", "inputs"):
            by_name(f"model.{key}", getattr(self, key))
        for name, size in self.dims.items():
            within(key_of("model.dims", name), size, 0)


class Fallback(StrEnum):
    """Whether operators that a provider lacks may run on the CPU."""

    allow = "allow"
    refuse = "refuse"


class ThrottleMethod(StrEnum):
    """How a share may be asked to be enforced."""

    auto = "auto"
    cgroup = "cgroup"
    suspend = "suspend"


FACTS = (
    *("gflops", "gflops_single", "int8_gops", "memory_gbps", "cores", "l2_bytes", "l3_bytes", "cycle_ms", "slice_ms"),
    *("runtime_gflops", "runtime_small_gflops", "runtime_memory_gbps", "runtime_launch_ms", "runtime_call_ms"),
    *("runtime_in_gbps", "runtime_out_gbps"),
)
"""What can be said of an imagined device."""


@dataclass
class DeviceConfig:
    """Something that runs models: this machine, or a share of it.

    Attributes:
        name: How runs and tables call it.
        host: The host that joined where it is, or ``kind:KIND``, any free one of several equal ones; None is this
            machine. ``imagined``: it does not exist, and is predicted and placed on by what `facts` say.
        kind: ``local`` (a machine as it is), ``emulated`` (a share of CPU time on its cores), or one that an
            installed package adds.
        cores: CPU indices to run on; None takes the highest-numbered ones that pepper may use, as many
            as threads.
        threads: onnxruntime's intra-operator threads; None is one per core.
        provider: onnxruntime execution provider.
        library: The plug-in library that brings the provider: its file, or the installed Python module that knows where
            it is; None where onnxruntime itself has it.
        options: The provider's own options by name, such as ``device_id``.
        accelerator: Which of the hardware devices that a plug-in can use: ``cpu``, ``gpu`` or ``npu``, and a number
            where there are several (``gpu:1`` is the second); None is the first.
        fallback: Whether operators that the provider lacks may run on the CPU: ``allow`` (they are counted and
            named) or ``refuse`` (the cell fails).
        share: CPU time that each core gives to the device, 0 < share <= 1.
        throttle: How a share is enforced: ``suspend``, ``cgroup``, or ``auto`` (suspend: it is finer).
        period_ms: Mean length of one run-and-wait cycle of a throttled device; None is 3 (suspend) or 10 (cgroup).
        memory_bytes: Most memory that the device's worker may use; None is no limit.
        facts: What an imagined device is like: ``gflops`` and ``memory_gbps``, and what else of `FACTS` is known, by
            name, as a run's parameters ``device_...`` have them of devices that were measured.
    """

    name: str = MISSING
    kind: str = "local"
    cores: list[int] | None = None
    threads: int | None = None
    provider: str = "CPUExecutionProvider"
    library: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    accelerator: str | None = None
    fallback: Fallback = Fallback.allow
    share: float = 1.0
    throttle: ThrottleMethod = ThrottleMethod.auto
    period_ms: float | None = None
    memory_bytes: int | None = None
    host: str | None = None
    facts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.host is not None:
            check_host(self.host)
        self._check_facts()
        additions.check("device.kind", self.kind, KINDS, additions.DEVICES)
        if self.accelerator is not None and not re.fullmatch(r"(cpu|gpu|npu)(:\d+)?", self.accelerator):
            raise ConfigError(f"device.accelerator={self.accelerator}: give cpu, gpu or npu, or one by number: gpu:1")
        if self.accelerator is not None and self.library is None:
            raise ConfigError(
                f"device.accelerator={self.accelerator}: only a plug-in (device.library) is told which; {self.provider}"
                " takes it as an option, such as device.options.device_id=1"
            )
        by_name("device.options", self.options)
        within("device.share", self.share, 0, 1, above=True)
        within("device.threads", self.threads, 1)
        within("device.period_ms", self.period_ms, 1, 1000)
        within("device.memory_bytes", self.memory_bytes, 1)
        if self.kind == "local" and (self.share != 1 or self.memory_bytes is not None):
            key = "share" if self.share != 1 else "memory_bytes"
            raise ConfigError(
                f"device.{key}={getattr(self, key)}: only an emulated device has one; set device.kind=emulated"
            )
        if self.cores is not None:
            if not self.cores or len(set(self.cores)) != len(self.cores):
                raise ConfigError(f"device.cores={self.cores}: give one or more different core numbers")
            if self.threads is not None and self.threads > len(self.cores):
                raise ConfigError(
                    f"device.threads={self.threads}: more than the {len(self.cores)} cores of device.cores; lower it"
                )

    def _check_facts(self) -> None:
        by_name("device.facts", self.facts)
        for name, value in self.facts.items():
            if name not in FACTS:
                hint = nearest(name, FACTS) or f"; there are {', '.join(FACTS)}"
                raise ConfigError(f"device.facts.{name}: no such fact of a device{hint}")
            within(f"device.facts.{name}", value, 0, above=name != "l3_bytes")
        if self.facts and self.host != IMAGINED:
            raise ConfigError(
                f"device.facts.{next(iter(self.facts))}: what this device is like is measured; set"
                f" device.host={IMAGINED} for one that does not exist"
            )


@dataclass
class LoadConfig:
    """Background load on the device while a model is timed.

    Attributes:
        name: How runs and tables call it; ``cpuPERCENT``, ``gpuPERCENT`` or both where it is not given.
        percent: What the generator uses of each loaded core of the device when it runs there alone.
        cores: How many of the device's cores are loaded; None is all.
        generator: ``pepper`` (built in), ``stress-ng`` (where installed), or one that an installed package adds.
        period_ms: Length of one busy-and-sleep cycle of the built-in generator, and mean pause of the neighbour on an
            accelerator.
        accelerator_percent: For how much of the time a neighbour infers on the device's accelerator when it is alone
            there.
    """

    percent: float = MISSING
    name: str | None = None
    cores: int | None = None
    generator: str = "pepper"
    period_ms: float = 2.0
    accelerator_percent: float = 0.0

    def __post_init__(self) -> None:
        if not self.name:
            parts = {"cpu": self.percent, "gpu": self.accelerator_percent}
            self.name = "".join(f"{part}{percent:g}" for part, percent in parts.items() if percent) or "cpu0"
        if self.name == "measured":  # a plan of before: its load would be put on the device that has it already
            raise ConfigError("load.name=measured: what others use is called found now; write load: found in the fleet")
        within("load.percent", self.percent, 0, 100)
        within("load.accelerator_percent", self.accelerator_percent, 0, 100)
        within("load.cores", self.cores, 1)
        additions.check("load.generator", self.generator, GENERATORS, additions.LOADS)
        within("load.period_ms", self.period_ms, 1, 1000)

    @property
    def is_silent(self) -> bool:
        """Whether it is no load at all."""
        return not self.percent and not self.accelerator_percent


class Optimization(StrEnum):
    """Levels of onnxruntime's graph optimisation."""

    disabled = "disabled"
    basic = "basic"
    extended = "extended"
    all = "all"


@dataclass
class SessionConfig:
    """How onnxruntime opens a model.

    Attributes:
        optimization: Graph optimisation: ``disabled``, ``basic``, ``extended`` or ``all``.
        spinning: Whether idle onnxruntime threads spin instead of sleeping; off, since spinning
            threads are a load of their own.
        parallel: Whether independent operators run side by side (``ORT_PARALLEL``).
    """

    optimization: Optimization = Optimization.all
    spinning: bool = False
    parallel: bool = False


@dataclass
class LimitsConfig:
    """What a trusted profile must keep to; beyond any of these its verdict is INVALID.

    Attributes:
        ci_percent: Half-width of the median's 95 % confidence interval, percent of the median.
        drift_percent: Difference between the medians of the first and the last third of the samples.
        load_points: Load achieved alone against the requested one, percentage points.
        share_percent: CPU share achieved against the requested one, percent of the request.
        foreign_percent: CPU time on the device's cores that went to other processes, percent.
        steal_percent: CPU time that the hypervisor kept from the machine, percent.
        pace_percent: Difference between the times that the reference kernel's arithmetic took around and amid the
            samples, percent.
        pace_memory_percent: The same of its reads of memory, which differ by themselves.
        repeat_percent: How far two medians of a cell may lie apart that was measured twice, percent of the lower.
        order_percent: How much faster than a cell with less load or more share, where the noise floor is less, percent.
    """

    ci_percent: float = 10.0
    drift_percent: float = 15.0
    load_points: float = 5.0
    share_percent: float = 10.0
    foreign_percent: float = 10.0
    steal_percent: float = 5.0
    pace_percent: float = 25.0
    pace_memory_percent: float = 100.0
    repeat_percent: float = 15.0
    order_percent: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            within(f"measure.limits.{name}", value, 0, above=True)


class Binding(StrEnum):
    """Where the inputs and outputs of an inference that is timed are."""

    host = "host"
    device = "device"
    graph = "graph"


@dataclass
class MeasureConfig:
    """When timing starts, when it stops, and what is recorded.

    Timing stops once ``min_seconds``, ``min_samples`` and ``ci_percent`` are all met, or at the cap:
    ``max_seconds`` or ``max_samples``, but never below ``min_samples``.

    Attributes:
        min_seconds: Least timed span.
        min_samples: Least number of timed inferences.
        ci_percent: Wanted half-width of the median's 95 % confidence interval, percent of the median.
        max_seconds: Cap on the timed span.
        max_samples: Cap on the number of timed inferences.
        warmup_min_seconds: Least warm-up.
        warmup_max_seconds: Most warm-up; it ends earlier once the latency is steady.
        verify_load_seconds: How long the load runs alone to verify it.
        time_limit_seconds: Longest wait for the worker's answer; then the cell fails.
        seed: Seed of the inputs' values.
        binding: Where inputs and outputs are: ``host`` (arrays in, arrays out: what a stage costs), ``device`` (in
            the memory of what computes; transfers are timed apart) or ``graph`` (there, too, and the inference is
            captured once and repeated without launching its kernels one by one, where the provider can: CUDA graphs).
        operators: Whether to add a separate pass with onnxruntime's per-operator profiler.
        session: How onnxruntime opens the model.
        limits: What a trusted profile must keep to.
    """

    min_seconds: float = MISSING
    min_samples: int = MISSING
    ci_percent: float = MISSING
    max_seconds: float = MISSING
    max_samples: int = MISSING
    warmup_min_seconds: float = MISSING
    warmup_max_seconds: float = MISSING
    verify_load_seconds: float = MISSING
    time_limit_seconds: float = MISSING
    seed: int = 0
    binding: Binding = Binding.host
    operators: bool = False
    session: SessionConfig = field(default_factory=SessionConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        within("measure.min_seconds", self.min_seconds, 0)
        within("measure.min_samples", self.min_samples, 1)
        within("measure.ci_percent", self.ci_percent, 0, above=True)
        within("measure.max_seconds", self.max_seconds, self.min_seconds)
        within("measure.max_samples", self.max_samples, self.min_samples)
        within("measure.warmup_min_seconds", self.warmup_min_seconds, 0)
        within("measure.warmup_max_seconds", self.warmup_max_seconds, self.warmup_min_seconds)
        within("measure.verify_load_seconds", self.verify_load_seconds, 0.05)
        within("measure.time_limit_seconds", self.time_limit_seconds, 0, above=True)
        within("measure.seed", self.seed, 0)


class Rerun(StrEnum):
    """Which finished cells are measured again."""

    failed = "failed"
    all = "all"
    none = "none"


@dataclass
class SweepConfig:
    """A product of axes, one cell for each combination.

    Attributes:
        name: How the sweep's parent run is called.
        axes: Values by group (``model``, ``device``, ``load``, ``measure``) or by key (``device.threads``).
        seed: Seed of the order in which cells are measured.
        rerun: Which finished cells are measured again: ``failed`` (those that failed or are INVALID),
            ``all``, or ``none``.
        retries: How many times INVALID cells are measured again at the end.
        retest: Part of the VALID cells that is measured a second time at the end, to see how far two measurements
            differ: 0.05 is one in twenty; 0 is none.
        budget: How many of the cells are measured, VALID ones of before counted: those that a latency model learns most
            from; None is all of them.
    """

    name: str = MISSING
    axes: dict[str, list[Any]] = field(default_factory=dict)
    seed: int = 0
    rerun: Rerun = Rerun.failed
    retries: int = 1
    retest: float = 0.05
    budget: int | None = None

    def __post_init__(self) -> None:
        if not self.axes:
            raise ConfigError("sweep.axes: empty; name at least one group or key with its values")
        for axis, values in self.axes.items():
            if not values:
                raise ConfigError(f"sweep.axes.{axis}: empty; give at least one value")
        within("sweep.retries", self.retries, 0)
        within("sweep.budget", self.budget, 1)
        within("sweep.retest", self.retest, 0, 1)
