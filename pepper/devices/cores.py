"""Devices that are cores of this machine, all of their time or a share of it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from pepper import additions
from pepper.config import DeviceConfig
from pepper.config.measuring import KINDS, ThrottleMethod
from pepper.devices import host, runtimes
from pepper.devices.device import Command, Device, DeviceSpec, Program, short_hash
from pepper.devices.process import PACKAGE_ROOT, Process
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.known import computes_on_cores, graph_option
from pepper.devices.throttle import Cycle, Suspend, Throttle, make_throttle, memory_limit
from pepper.errors import ConfigError, MeasureError

# As short as each method allows without costing the device time: a quota acts at the scheduler's tick only.
PERIOD_MS = {ThrottleMethod.auto: 3.0, ThrottleMethod.suspend: 3.0, ThrottleMethod.cgroup: 10.0}
_POLL_S = 0.005


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
    if (option := graph_option(config.provider)) in config.options:
        raise ConfigError(
            f"device.options.{option}: a graph wants bound inputs; give measure.binding=graph in its place"
        )
    choice = Choice(config.provider, config.library, _texts(config.options), config.accelerator, config.fallback)
    found = runtimes.found(choice)
    _check_share(config, dict(found).get("kind"))
    return DeviceSpec(
        name=config.name,
        machine=host.machine_id(),
        kind=config.kind,
        cores=tuple(cores),
        threads=config.threads or len(cores),
        provider=config.provider,
        share=config.share,
        throttle=config.throttle,
        period_ms=PERIOD_MS[config.throttle] if config.period_ms is None else config.period_ms,
        memory_bytes=config.memory_bytes,
        library=choice.library,
        options=tuple(sorted(choice.options.items())),
        accelerator=choice.accelerator,
        fallback=choice.fallback,
        found=found,
    )


def _texts(options: Mapping[str, Any]) -> dict[str, str]:
    """Return a provider's options as onnxruntime takes them."""

    def text(value: Any) -> str:
        if isinstance(value, bool):
            return str(int(value))
        return json.dumps(value) if isinstance(value, dict | list) else str(value)

    return {name: text(value) for name, value in options.items()}


def _check_share(config: DeviceConfig, kind: str | None) -> None:
    """Refuse a share of an accelerator: what stops and continues the program that feeds it does not slow it.

    Raises:
        ConfigError: It is one.
    """
    on_cores = computes_on_cores(config.provider) and kind in (None, "cpu")
    if config.share < 1 and not on_cores:
        raise ConfigError(
            f"device.share={config.share:g}: {config.provider} computes on an accelerator, which goes on while the"
            " program that feeds it is stopped; give device.share=1"
        )


def likeness(spec: DeviceSpec) -> str:
    """Return a short hash that devices share if they are the same hardware under the same limits.

    What does not count: which of some equal cores they have, whether they are called emulated, and, of whole cores, how
    a share of them would be held.
    """
    facts = {**spec.facts(), "cores": host.likeness(spec.cores)}
    if spec.kind in KINDS:  # one that was added may be anything
        del facts["kind"]
    if spec.share == 1:
        del facts["throttle"], facts["period_ms"]
    return short_hash(facts)


class CoresDevice(Device):
    """Cores of this machine; programs are processes.

    Args:
        spec: The device.
        cycle: The turns on its cores, where it shares them (see :func:`together`).
    """

    host = host.NAME

    def __init__(self, spec: DeviceSpec, cycle: Cycle | None = None) -> None:
        self.spec = spec
        self._cycle = cycle or Cycle(spec.cores, spec.period_ms)
        self._programs: list[CoresProgram] = []
        self._commands: list[CoresCommand] = []
        self._throttles: list[Throttle] | None = None  # made when the first process is confined

    def start(self, module: str, core: int | None = None) -> Program:
        """Start a process on the device's cores, or on one of them."""
        cores, threads = self.spec.cores, self.spec.threads
        if core is not None:
            cores, threads = cores[core : core + 1], 1
        program = CoresProgram(self, module, cores, threads)
        self._programs.append(program)
        return program

    def run(self, command: Sequence[str], cores: int) -> Command:
        """Start an installed program on the first of the device's cores."""
        started = CoresCommand(self, command, self.spec.cores[:cores])
        self._commands.append(started)
        return started

    def confine(self, pid: int, wants: float | None = None) -> None:
        """Hold a process to the device's limits, together with those confined before; see `Program.confine`.

        Raises:
            DeviceError: The throttle asked for cannot be used on this machine.
            MeasureError: It has ended.
        """
        if self._throttles is None:
            self._throttles = self._make_throttles()
        for throttle in self._throttles:
            throttle.add(pid, wants)
        helpers = [helper for throttle in self._throttles for helper in throttle.helpers]
        for program in self._programs:
            program.helpers = helpers

    def pause(self, pid: int) -> None:
        """Stop a confined process until it is confined again: even waking up in each turn it would take time from
        those that work. Where nothing is stopped in turns, an idle process costs nothing."""
        if held := self._suspend():
            held.pause(pid)

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

    @property
    def hands_out(self) -> bool:
        """Whether it stops and continues its processes in turn."""
        return self.spec.share < 1 and self.spec.throttle != ThrottleMethod.cgroup

    @property
    def cycle_ms(self) -> float | None:
        """Mean length so far of the cycle in which it lets its processes run and wait."""
        held = self._suspend()
        return held.cycle_ms() if held else None

    def given(self) -> tuple[float, float] | None:
        """Return how long its processes were let run so far, and that span, in s; None where nothing stops them."""
        held = self._suspend()
        return held.given() if held else None

    def _suspend(self) -> Suspend | None:
        return next((throttle for throttle in self._throttles or () if isinstance(throttle, Suspend)), None)

    def close(self) -> None:
        """End its processes and remove the throttle."""
        for program in self._programs:
            program.kill()
            program.close()
        for command in self._commands:
            command.end()
        for throttle in self._throttles or ():
            throttle.close()
        self._throttles = None


class CoresProgram(Process, Program):
    """A process on a device's cores."""

    def __init__(self, device: CoresDevice, module: str, cores: Sequence[int], threads: int) -> None:
        super().__init__(module, cores, threads)
        self._device = device

    def confine(self, wants: float | None = None) -> None:
        """Hold it to the device's limits from now on."""
        self._device.confine(self.pid, wants)

    def pause(self) -> None:
        """Stop it until it is confined again."""
        self._device.pause(self.pid)

    def end(self) -> None:
        """Take it out of the device's turns, and end it: its number may be another process's soon."""
        self.pause()
        self.kill()  # it may be stopped or busy: closing would wait for it
        self.close()


class CoresCommand(Command):
    """A group of processes on a device's cores: the program, and whatever it starts."""

    def __init__(self, device: CoresDevice, command: Sequence[str], cores: Sequence[int]) -> None:
        program = shutil.which(command[0])
        if program is None:
            raise MeasureError(f"{command[0]}: not installed on this machine; install it")
        self._device = device
        self._confined: list[psutil.Process] = []
        # The pipe's other end tells the leader of the group whether this process lives.
        theirs, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "pepper.devices.command", str(theirs), program, *command[1:]],
                env={**os.environ, "PYTHONPATH": PACKAGE_ROOT},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs],
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        with contextlib.suppress(ProcessLookupError):  # it has ended already: confining says so
            os.sched_setaffinity(self._popen.pid, cores)  # long before it starts anything

    def confine(self, count: int, timeout_s: float) -> bool:
        """Wait for what the program starts, and hold it to the device's limits."""
        deadline = time.monotonic() + timeout_s
        while len(found := self._started()) < count:
            if self._popen.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        for process in found:
            self._device.confine(process.pid)
        self._confined = found
        return True

    def _started(self) -> list[psutil.Process]:
        """Return what the program has started that the leader of their group runs."""
        with contextlib.suppress(psutil.NoSuchProcess):  # one has just ended
            programs = psutil.Process(self._popen.pid).children()
            return [child for program in programs for child in program.children(recursive=True)]
        return []

    def cpu_s(self) -> float:
        """Return the CPU time that the confined processes have used, in seconds."""
        try:
            times = [process.cpu_times() for process in self._confined]
        except psutil.NoSuchProcess as error:
            raise MeasureError(f"process {error.pid} has ended") from error
        return float(sum(entry.user + entry.system for entry in times))

    def end(self) -> None:
        """End the group, stopped processes too."""
        if self._pipe < 0:
            return
        with contextlib.suppress(ProcessLookupError):  # they have ended by themselves
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        os.close(self._pipe)
        self._pipe = -1


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
        turns = {(spec.cores, spec.period_ms) for spec in users if spec.throttle != ThrottleMethod.cgroup}
        if len(turns) > 1:
            raise ConfigError(
                f"{names} share core {core} but not all their cores and device.period_ms; give them the same ones"
            )
    cycles = {spec.cores: Cycle(spec.cores, spec.period_ms) for spec in specs}
    return [_device_class(spec.kind)(spec, cycles[spec.cores]) for spec in specs]


def _device_class(kind: str) -> type[CoresDevice]:
    return CoresDevice if kind in KINDS else additions.load_class(additions.DEVICES, kind, CoresDevice)
