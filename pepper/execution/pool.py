"""Stages at hand: started once a part and device, kept for the next plan that wants the same."""

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from pepper.config import LoadConfig, SessionConfig
from pepper.config.hosting import IMAGINED, KIND
from pepper.config.placing import FOUND
from pepper.devices.device import Device, DeviceSpec, Program
from pepper.errors import ConfigError, DeviceError, ExecutionError, MeasureError
from pepper.execution.layout import Layout, PlacedPart
from pepper.fleet import Fleet
from pepper.graph.external import external_files
from pepper.graph.model import ModelFile
from pepper.graph.source import content_hash, read_proto
from pepper.hosts.borrowed import Borrowed
from pepper.hosts.host import CoreUse, UseMeter
from pepper.hosts.local import here
from pepper.hosts.reach import host_at, joined_hosts
from pepper.measure.load import Load, Usage
from pepper.measure.loads import check_load, start_load
from pepper.measure.sent import brought

MOST_IDLE = 16
IDLE = LoadConfig(name="idle", percent=0)


class StageLost(Exception):  # noqa: N818 - a signal to go on without it, no mistake
    """A stage died, hung, or refused to work.

    Args:
        device: Its device.
        reason: What happened, in one line.
    """

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"{device}: {reason}")
        self.device, self.reason = device, reason


def specs(fleet: Fleet) -> dict[str, DeviceSpec]:
    """Return the devices of a fleet with every default filled in from this machine, under their names in the fleet.

    Raises:
        ConfigError: This machine cannot give a device or its load, or it is not said what it is; the message names it.
    """
    found = {}
    for name, entry in fleet.devices.items():
        try:
            if entry.device is None or entry.load is None:
                raise ConfigError(f"it does not say what device {name!r} is; make a plan with task=place")
            found[name] = replace(host_at(entry.device.host).resolve(entry.device), name=name)
            check_load(entry.load, found[name])
        except ConfigError as error:
            raise ConfigError(f"fleet.devices.{name}: {error}") from error
    return found


def runnable(fleet: Fleet) -> dict[str, DeviceSpec]:
    """Return the same of a fleet that is to run something.

    Raises:
        ConfigError: As of `specs`, or a device does not exist, or is any of a kind.
    """
    found = specs(fleet)
    for name, spec in found.items():
        if spec.host == IMAGINED:
            raise ConfigError(
                f"fleet.devices.{name}: is imagined (device.host={IMAGINED}): plans for it can be made, not run"
            )
        if spec.host is not None and spec.host.startswith(KIND):
            raise ConfigError(
                f"fleet.devices.{name}: {spec.host} is any one of several hosts; a plan runs on one: give its name"
            )
    return found


@dataclass
class StageHandle:
    """The parent's end of a stage.

    Attributes:
        part: What it runs.
        program: What runs it.
        opened: What opening took: ``open_ms``, ``memory_bytes``.
    """

    part: PlacedPart
    program: Program
    opened: dict[str, Any] = field(default_factory=dict)

    def ask(self, op: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Ask the stage.

        Raises:
            StageLost: It died, refused, or did not answer in time (it is then killed).
        """
        try:
            return self.program.request(op, timeout_s=timeout_s, **fields)[0]
        except MeasureError as error:
            raise StageLost(self.part.device, str(error).split(";")[0]) from error


class StagePool:
    """The fleet's devices in use, with their loads and stages.

    Leaving the context ends every process, also stopped ones. Stages may be started from another thread than the one
    that uses them, but only from `background`: the kernel ends a process with the thread that started it.

    Args:
        fleet: The devices.
        session: How onnxruntime opens a part.
        time_limit_s: Longest wait for a stage's answer.
        most_idle: Stages kept beyond those in use; the longest unused one goes first.
        together: Whether several layouts run at one time: then no stage is stopped or ended for those of another one.

    Raises:
        ConfigError: This machine cannot give a device, or not all of them at the same time.
    """

    def __init__(
        self,
        fleet: Fleet,
        session: SessionConfig,
        time_limit_s: float,
        most_idle: int = MOST_IDLE,
        *,
        together: bool = False,
    ) -> None:
        self.fleet, self._together = fleet, together
        self._most_idle = most_idle
        self.lost: dict[str, str] = {}
        self._options = dict(vars(session))
        self._time_limit_s = time_limit_s
        self.specs = runnable(fleet)
        devices = here().devices([spec for spec in self.specs.values() if spec.host is None])
        self._devices: dict[str, Device] = {device.spec.name: device for device in devices}
        self._lenders: dict[str, Borrowed] = {}
        self._stages: dict[tuple[str, str], StageHandle] = {}  # the longest unused one first
        self._paused: set[tuple[str, str]] = set()
        self._loads: dict[str, Load] = {}
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self.background = ThreadPoolExecutor(1, "pepper-background")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.background.shutdown)
            self._borrow(stack)
            for name, device in self._devices.items():
                stack.enter_context(device)
                load = self.planned(name)
                if not load.is_silent:
                    self._loads[name] = start_load(load.generator, device)
                    stack.callback(self._loads[name].close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _borrow(self, stack: ExitStack) -> None:
        """Take the devices of other hosts into use, until the stack is left.

        Raises:
            ConfigError: They cannot be used at the same time.
            DeviceError: A host is lost, or cannot be reached straight.
        """
        away: dict[str, list[DeviceSpec]] = {}
        for spec in self.specs.values():
            if spec.host is not None:
                away.setdefault(spec.host, []).append(spec)
        for host, lent in away.items():
            lender = stack.enter_context(Borrowed(joined_hosts(), host, lent))
            self._lenders |= dict.fromkeys(lender.devices, lender)
            self._devices |= lender.devices

    def lender(self, name: str) -> Borrowed | None:
        """Return the host that lends a device; None is this machine."""
        return self._lenders.get(name)

    def ahead_ns(self, names: Collection[str]) -> dict[str, int]:
        """Return how far the clocks of these devices' hosts are ahead of this machine's, by the hosts' names.

        Raises:
            StageLost: A host is lost.
        """
        found = {}
        for name in names:
            if (lender := self.lender(name)) is not None and lender.name not in found:
                try:
                    found[lender.name] = lender.ahead_ns()[0]
                except DeviceError as error:
                    raise StageLost(name, str(error)) from error
        return found

    def meter(self) -> UseMeter:
        """Watch the cores of all devices from now on, and tell this run's own programs from others'."""
        local = [spec for spec in self.specs.values() if spec.host is None]
        return _Meters([here().meter(local, own=True), *(each.meter() for each in {*self._lenders.values()})])

    def load(self, running: bool) -> None:
        """Start the fleet's loads, or silence them."""
        for name, load in self._loads.items():
            load.set(self.planned(name) if running else IDLE)

    def planned(self, name: str) -> LoadConfig:
        """Return the load that is to be put on a device: what was found there is there already."""
        load = self.fleet.devices[name].load
        return IDLE if load is None or load.name == FOUND else load

    def put(self, name: str, load: LoadConfig) -> None:
        """Put a load on a device, in place of the one that it has."""
        with self._lock:
            if name not in self._loads:
                self._loads[name] = start_load(load.generator, self._devices[name])
                self._stack.callback(self._loads[name].close)
            self._loads[name].set(load)

    def usage(self) -> dict[str, Usage]:
        """Return what each device's load generator has used so far, where there is one."""
        return {name: load.usage() for name, load in self._loads.items()}

    def device(self, name: str) -> Device:
        """Return a device in use."""
        return self._devices[name]

    def stages(self, layout: Layout) -> list[StageHandle]:
        """Return a stage for each part, started where there is none yet.

        Raises:
            ExecutionError: A part's device is not in the fleet, or was lost.
            StageLost: A stage does not start.
        """
        unknown = [part.device for part in layout.parts if part.device not in self.fleet.devices]
        if unknown:
            raise ExecutionError(
                f"device {unknown[0]!r}: not in the fleet ({', '.join(self.fleet.devices)}); place the model again"
            )
        with self._lock:
            for part in layout.parts:
                if part.device in self.lost:
                    raise StageLost(part.device, self.lost[part.device])
            found = [self._stage(part) for part in layout.parts]
            self._trim(found)
        return found

    def _stage(self, part: PlacedPart) -> StageHandle:
        key = (part.sha256, part.device)
        if key in self._stages and not self._stages[key].program.alive:
            self._end(key)
        stage = self._stages.pop(key, None)
        if stage is None:
            stage = self._start(part)
        elif key in self._paused:
            stage.program.confine()
        self._paused.discard(key)
        self._stages[key] = stage
        return stage

    def pause(self, used: Collection[StageHandle]) -> None:
        """Stop all stages but these until they are wanted again, where not all are at once."""
        with self._lock:
            for key, stage in self._stages.items():
                if not self._together and stage not in used and key not in self._paused and stage.program.alive:
                    stage.program.pause()
                    self._paused.add(key)

    def _start(self, part: PlacedPart) -> StageHandle:
        device = self._devices[part.device]
        stage = StageHandle(part, device.start("pepper.execution.stage"))
        try:
            stage.ask("ready", self._time_limit_s)  # its libraries are loaded, at full speed
            stage.program.confine()
            stage.opened = stage.ask(
                "open",
                self._time_limit_s,
                path=self._path(part),
                provider=device.spec.choice.to_json(),
                threads=device.spec.threads,
                options=self._options,
                host=device.host,
            )
        except Exception:
            stage.program.end()
            raise
        return stage

    def _path(self, part: PlacedPart) -> str:
        """Return where a part is on its device's host, which is given it where it lacks it.

        Raises:
            StageLost: It does not get there.
        """
        lender = self.lender(part.device)
        if lender is None:
            return str(part.file)
        try:
            weights = tuple(external_files(read_proto(part.file), part.file))
            model = ModelFile(part.file.name, part.file, content_hash([part.file, *weights]), {}, weight_files=weights)
            return brought(joined_hosts(), lender.name, model)
        except (DeviceError, MeasureError) as error:
            raise StageLost(part.device, str(error)) from error

    def _trim(self, used: Collection[StageHandle]) -> None:
        idle = [key for key, stage in self._stages.items() if not self._together and stage not in used]
        for key in idle[: max(0, len(idle) - self._most_idle)]:
            self._end(key)

    def _end(self, key: tuple[str, str]) -> None:
        self._paused.discard(key)
        self._stages.pop(key).program.end()

    def lose(self, device: str, reason: str) -> None:
        """Give a device up: its stages end, and no more are started there."""
        with self._lock:
            self.lost.setdefault(device, reason)
            for key in [key for key in self._stages if key[1] == device]:
                self._end(key)


class _Meters(UseMeter):
    """Several as one."""

    def __init__(self, meters: Sequence[UseMeter]) -> None:
        self._meters = meters

    def read(self) -> dict[str, CoreUse]:
        """Return what became of each device's cores since the last reading."""
        return {name: use for meter in self._meters for name, use in meter.read().items()}
