"""The contracts of what runs models: a device, and the programs at work on it."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

from pepper.config.measuring import ThrottleMethod
from pepper.devices.protocol import Arrays, Json
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.known import computes_on_cores


@dataclass(frozen=True)
class DeviceSpec:
    """A device with every default filled in; equal specs are the same device.

    Attributes:
        name: How runs and tables call it; not part of its identity.
        machine: Its host's machine (see :func:`machine_hash`).
        kind: ``local``, ``emulated``, or one that was added.
        cores: CPU indices that it runs on, as its host numbers them.
        threads: onnxruntime's intra-operator threads.
        provider: onnxruntime execution provider.
        library: Where the plug-in library is that brings it; None where onnxruntime has it.
        options: The provider's own options, by name and in order.
        accelerator: Which of the hardware devices that a plug-in can use; None is the first.
        fallback: Whether operators may run on the CPU instead: ``allow`` or ``refuse``.
        host: The host that joined where it is, or the kind of hosts of which one has it; None is this machine.
        onnxruntime: Its version there; None on this machine, which says it itself.
        found: What the provider and its hardware are here, as far as they tell: see
            :func:`pepper.devices.inspector.facts`.
        share: CPU time that each core gives to it, 0 < share <= 1.
        throttle: How the share is asked to be enforced.
        period_ms: Length of one run-and-wait cycle.
        memory_bytes: Most memory of its processes; None is no limit.
        imagined: What is said of one that does not exist, by name and in order.
    """

    name: str
    machine: str
    kind: str
    cores: tuple[int, ...]
    threads: int
    provider: str
    share: float
    throttle: ThrottleMethod
    period_ms: float
    memory_bytes: int | None
    library: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    accelerator: str | None = None
    fallback: str = "allow"
    found: tuple[tuple[str, str], ...] = ()
    host: str | None = None
    onnxruntime: str | None = None
    imagined: tuple[tuple[str, float], ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return what makes this device itself, its machine included and its name left out; what only some have is left
        out of the others'."""
        defaults = {each.name: each.default for each in fields(self)}
        facts = {name: value for name, value in vars(self).items() if value != defaults[name]}
        del facts["name"]
        return facts

    @property
    def on_cores(self) -> bool:
        """Whether its provider computes on its cores: then what holds and loads these holds and loads all of it."""
        return computes_on_cores(self.provider) and dict(self.found).get("kind") in (None, "cpu")

    @property
    def choice(self) -> Choice:
        """The provider, as programs on the device are told."""
        return Choice(self.provider, self.library, dict(self.options), self.accelerator, self.fallback)

    @property
    def identity(self) -> str:
        """A short hash of the facts."""
        return short_hash(self.facts())


def short_hash(facts: Mapping[str, Any]) -> str:
    """Return a hash of facts, 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def machine_hash(cpu_facts: Mapping[str, Any]) -> str:
    """Return what tells a machine from others, of its facts (see :func:`pepper.devices.host.cpu_facts`): a short hash
    that changes when its processor, its cores or its memory do."""
    facts = {key: cpu_facts[key] for key in ("cpu_model", "instruction_sets", "caches", "cores")}
    return short_hash({**facts, "memory_gib": round(cpu_facts["memory_bytes"] / 2**30)})


class Program(ABC):
    """A Python program at work on a device, which answers requests (see :mod:`pepper.devices.protocol`).

    It belongs to the device that started it, and ends with it at the latest: whoever started it may end it before.
    Nothing of it outlives the process that it was started for, however that ends. One thread at a time may use it.
    It begins at full speed, not held to the device's share, so that it loads its libraries as fast anywhere.

    Attributes:
        module: What runs, as in ``python -m``.
    """

    module: str

    @abstractmethod
    def request(
        self, op: str, *, timeout_s: float, arrays: Arrays | None = None, **fields: Any
    ) -> tuple[Json, dict[str, Any]]:
        """Send a request and wait for its answer, without using CPU time of the device.

        Args:
            op: The handler's name.
            timeout_s: Longest wait; then the program is ended.
            arrays: Arrays that go with the request.
            **fields: The handler's arguments, JSON-able.

        Returns:
            What the handler returned: a dictionary, and arrays by name.

        Raises:
            MeasureError: The program refused the request and lives on; or it crashed, did not answer in time or
                answered what is no answer, or what holds it to its share ended: then it is not alive any more.
        """

    @abstractmethod
    def confine(self, wants: float | None = None) -> None:
        """Hold it to the device's limits from now on, together with what was confined there before.

        Args:
            wants: Where the device :attr:`hands out <Device.hands_out>` its time: the part of it that the program, a
                neighbour of the others, wants, 0 to 1: it is let run for as much, but never more than they are; None
                is a program that takes what it can get. Once more, and it wants something else.

        Raises:
            DeviceError: The host cannot hold anything to these limits.
            MeasureError: It has ended.
        """

    @abstractmethod
    def pause(self) -> None:
        """Let it take no time of the device until it is confined again, for it has nothing to do; it may have ended."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether it still runs."""

    @abstractmethod
    def ends(self) -> list[int]:
        """Return file descriptors of which one becomes readable, between requests, when the program or what it depends
        on has ended; the next request then says how."""

    @abstractmethod
    def end(self) -> None:
        """End it now, whatever it does, wait until it is gone, and free what it held; again, and nothing happens."""


class Command(ABC):
    """An installed program at work on a device, and whatever it starts; it answers no requests.

    It belongs to the device, as a :class:`Program` does, and ends with the process that it was started for.
    """

    @abstractmethod
    def confine(self, count: int, timeout_s: float) -> bool:
        """Wait until it has started this many processes, and hold them to the device's limits from now on.

        Returns:
            False if it has ended, or has not started as many in time.
        """

    @abstractmethod
    def cpu_s(self) -> float:
        """Return the CPU time that the confined ones have used, in seconds (resolution: 10 ms).

        Raises:
            MeasureError: One of them has ended.
        """

    @abstractmethod
    def end(self) -> None:
        """End it and all that it started, stopped ones too; again, and nothing happens."""


class Device(ABC):
    """A device in use: what programs run on, held to its limits.

    It is made by its host and used as a context. Leaving the context, however that comes about, ends its programs, also
    those that are stopped, and leaves nothing of it on the host. Programs may be started from any thread that lives as
    long as they do.

    Attributes:
        spec: What it is.
        host: Name of its host: whose clock its programs' time stamps are of.
    """

    spec: DeviceSpec
    host: str

    @abstractmethod
    def start(self, module: str, core: int | None = None) -> Program:
        """Start a program, not yet held to the limits; that it does not start, its first request says.

        Args:
            module: What to run, as in ``python -m``.
            core: Position among the device's cores (0 is the first) of the only one that it may use; None is all.
        """

    @abstractmethod
    def run(self, command: Sequence[str], cores: int) -> Command:
        """Start an installed program that may use the first ones of the device's cores, as many as this.

        Raises:
            MeasureError: There is no such program.
        """

    @property
    @abstractmethod
    def throttle_method(self) -> str:
        """What holds the programs to the share: ``none``, ``cgroup-v1``, ``cgroup-v2``, ``suspend``, or another."""

    @property
    def hands_out(self) -> bool:
        """Whether it decides itself which of its programs runs, and when; elsewhere the system's scheduler does."""
        return False

    @property
    def cycle_ms(self) -> float | None:
        """Mean length so far of the cycle in which it lets its programs run and wait; None where nothing stops them."""
        return None

    @abstractmethod
    def given(self) -> tuple[float, float] | None:
        """Return how long its programs were let run so far, and that span, in s; None where nothing stops them."""

    @abstractmethod
    def close(self) -> None:
        """End its programs and free all that it holds; again, and nothing happens."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
