"""Devices: what runs models. Local and emulated ones; a remote one joins behind the same interface."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pepper.config import DeviceConfig
from pepper.devices import host
from pepper.devices.process import Process
from pepper.devices.throttle import Cycle, Suspend, Throttle, make_throttle, memory_limit
from pepper.errors import ConfigError

# As short as each method allows without costing the device time: a quota acts at the scheduler's tick only.
PERIOD_MS = {"auto": 3.0, "suspend": 3.0, "cgroup": 10.0}


@dataclass(frozen=True)
class DeviceSpec:
    """A device with every default filled in; equal specs are the same device.

    Attributes:
        name: How runs and tables call it; not part of its identity.
        kind: ``local`` or ``emulated``.
        cores: CPU indices that it runs on.
        threads: onnxruntime's intra-operator threads.
        provider: onnxruntime execution provider.
        share: CPU time that each core gives to it, 0 < share <= 1.
        throttle: How the share is asked to be enforced.
        period_ms: Length of one run-and-wait cycle.
        memory_bytes: Most memory of its processes; None is no limit.
    """

    name: str
    kind: str
    cores: tuple[int, ...]
    threads: int
    provider: str
    share: float
    throttle: str
    period_ms: float
    memory_bytes: int | None

    def facts(self) -> dict[str, Any]:
        """Return what makes this device itself, its machine included and its name left out."""
        facts = {"machine": host.machine_id(), **vars(self)}
        del facts["name"]
        return facts

    @property
    def identity(self) -> str:
        """A short hash of the facts."""
        return _hash(self.facts())

    @property
    def likeness(self) -> str:
        """A short hash that devices share if they differ in nothing but which of some equal cores they have."""
        return _hash({**self.facts(), "cores": host.likeness(self.cores)})


def _hash(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def resolve(config: DeviceConfig) -> DeviceSpec:
    """Fill in a device's cores and threads from this machine.

    Raises:
        ConfigError: It asks for cores that this machine does not give.
    """
    allowed = host.allowed_cores()
    if config.cores is None:
        count = config.threads or len(allowed)
        if count > len(allowed):
            raise ConfigError(
                f"device.threads={count}: this machine gives {len(allowed)} cores; use at most {len(allowed)}"
            )
        cores = allowed[-count:]  # the first cores serve most interrupts
    else:
        missing = [core for core in config.cores if core not in allowed]
        if missing:
            raise ConfigError(f"device.cores={config.cores}: core {missing[0]} is not among this machine's {allowed}")
        cores = sorted(config.cores)
    return DeviceSpec(
        name=config.name,
        kind=config.kind,
        cores=tuple(cores),
        threads=config.threads or len(cores),
        provider=config.provider,
        share=config.share,
        throttle=config.throttle,
        period_ms=PERIOD_MS[config.throttle] if config.period_ms is None else config.period_ms,
        memory_bytes=config.memory_bytes,
    )


class Device:
    """A device in use: starts programs on its cores, and holds them to its share.

    Leaving the context ends its programs, also those that are stopped, and removes the throttle.

    Args:
        spec: The device.
        cycle: The turns on its cores, where it shares them (see :func:`together`).
    """

    def __init__(self, spec: DeviceSpec, cycle: Cycle | None = None) -> None:
        self.spec = spec
        self._cycle = cycle or Cycle(spec.cores, spec.period_ms)
        self._processes: list[Process] = []
        self._throttles: list[Throttle] | None = None  # made when the first process is confined

    def start(self, module: str, cores: Sequence[int] | None = None) -> Process:
        """Start a program on the device's cores (or some of them), not yet held to the share."""
        process = Process(module, cores or self.spec.cores, self.spec.threads)
        self._processes.append(process)
        return process

    def confine(self, pid: int) -> None:
        """Hold a process to the device's share from now on, together with those confined before.

        Raises:
            DeviceError: The throttle asked for cannot be used on this machine.
        """
        if self._throttles is None:
            self._throttles = self._make_throttles()
        for throttle in self._throttles:
            throttle.add(pid)
        helpers = [helper for throttle in self._throttles for helper in throttle.helpers]
        for process in self._processes:
            process.helpers = helpers

    def pause(self, pid: int) -> None:
        """Stop a confined process that has nothing to do until it is confined again: even waking up in each turn it
        would take time from those that work. Where nothing is stopped in turns, an idle process costs nothing."""
        for throttle in self._throttles or ():
            if isinstance(throttle, Suspend):
                throttle.pause(pid)

    def _make_throttles(self) -> list[Throttle]:
        spec = self.spec
        throttles: list[Throttle] = []
        if spec.memory_bytes is not None:
            throttles.append(memory_limit(spec.memory_bytes))
        if spec.share < 1:
            throttles.append(make_throttle(spec.throttle, spec.share, spec.cores, spec.period_ms, self._cycle))
        return throttles

    @property
    def throttle_method(self) -> str:
        """What holds the processes to the share: ``none``, ``cgroup-v1``, ``cgroup-v2`` or ``suspend``."""
        return self._throttles[-1].method if self._throttles and self.spec.share < 1 else "none"

    def given(self) -> tuple[float, float] | None:
        """Return how long its processes were let run so far, and that span, in s; None where nothing stops them."""
        held = [throttle for throttle in self._throttles or () if isinstance(throttle, Suspend)]
        return held[0].given() if held else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.close()
        for throttle in self._throttles or ():
            throttle.close()


def together(specs: Sequence[DeviceSpec]) -> list[Device]:
    """Return devices that can be used at the same time: those on the same cores take turns.

    Raises:
        ConfigError: They want more of a core than there is, or share cores in a way that cannot be emulated.
    """
    for core in sorted({core for spec in specs for core in spec.cores}):
        users = [spec for spec in specs if core in spec.cores]
        wanted = sum(spec.share for spec in users)
        names = ", ".join(f"{spec.name} {spec.share:g}" for spec in users)
        if wanted > 1 + 1e-9:
            raise ConfigError(
                f"core {core} is wanted {wanted:g} times ({names}); give a device other cores"
                " (fleet.devices.NAME.cores) or less of them (fleet.devices.NAME.overrides.share)"
            )
        turns = {(spec.cores, spec.period_ms) for spec in users if spec.throttle != "cgroup"}
        if len(turns) > 1:
            raise ConfigError(
                f"{names} share core {core} but not all their cores and device.period_ms; give them the same ones"
            )
    cycles = {spec.cores: Cycle(spec.cores, spec.period_ms) for spec in specs}
    return [Device(spec, cycles[spec.cores]) for spec in specs]
