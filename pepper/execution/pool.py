"""Stages at hand: started once a part and device, kept for the next plan that wants the same."""

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from pepper.config import LoadConfig, SessionConfig
from pepper.config.placing import MEASURED
from pepper.devices.device import Device, DeviceSpec, Program
from pepper.errors import ConfigError, ExecutionError, MeasureError
from pepper.execution.layout import Layout, PlacedPart
from pepper.fleet import Fleet
from pepper.hosts.local import here
from pepper.hosts.reach import host_at
from pepper.measure.load import Load, Usage
from pepper.measure.loads import check_load, start_load

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

    Raises:
        ConfigError: This machine cannot give a device, or not all of them at the same time.
    """

    def __init__(self, fleet: Fleet, session: SessionConfig, time_limit_s: float, most_idle: int = MOST_IDLE) -> None:
        self.fleet = fleet
        self._most_idle = most_idle
        self.lost: dict[str, str] = {}
        self._options = dict(vars(session))
        self._time_limit_s = time_limit_s
        self.specs = specs(fleet)
        if away := [name for name, spec in self.specs.items() if spec.host is not None]:
            raise ConfigError(
                f"fleet.devices.{away[0]}: is on the host {self.specs[away[0]].host}; plans run on this machine only"
            )
        self.host = here()
        devices = self.host.devices(list(self.specs.values()))
        self._devices: Mapping[str, Device] = dict(zip(self.specs, devices, strict=True))
        self._stages: dict[tuple[str, str], StageHandle] = {}  # the longest unused one first
        self._paused: set[tuple[str, str]] = set()
        self._loads: dict[str, Load] = {}
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self.background = ThreadPoolExecutor(1, "pepper-background")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.background.shutdown)
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

    def load(self, running: bool) -> None:
        """Start the fleet's loads, or silence them."""
        for name, load in self._loads.items():
            load.set(self.planned(name) if running else IDLE)

    def planned(self, name: str) -> LoadConfig:
        """Return the load that is to be put on a device: what was measured there is there already."""
        load = self.fleet.devices[name].load
        return IDLE if load is None or load.name == MEASURED else load

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
        """Stop all stages but these until they are wanted again."""
        with self._lock:
            for key, stage in self._stages.items():
                if stage not in used and key not in self._paused and stage.program.alive:
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
                path=str(part.file),
                provider=device.spec.choice.to_json(),
                threads=device.spec.threads,
                options=self._options,
                host=device.host,
            )
        except Exception:
            stage.program.end()
            raise
        return stage

    def _trim(self, used: Collection[StageHandle]) -> None:
        idle = [key for key, stage in self._stages.items() if stage not in used]
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
