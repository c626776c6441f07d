"""Hold a group of processes to a share of CPU time: by suspend and resume, or by cgroup quota."""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil

from pepper.config.measuring import ThrottleMethod
from pepper.devices import host
from pepper.devices.process import Process
from pepper.errors import DeviceError, MeasureError
from pepper.scratch import remove_at_end, removed

CGROUP_ROOT = Path("/sys/fs/cgroup")
GROUP_NAME = re.compile(r"pepper-(\d+)-\d+")
LEAST_QUOTA_US = 1000  # the kernel's own minimum; a smaller quota is refused or not applied
TIMEOUT_S = 30.0


class Throttle(Protocol):
    """Holds processes to limits until it is closed."""

    method: str

    @property
    def helpers(self) -> Sequence[Process]:
        """Processes that hold it to the limit: where one ends, the limit does."""

    def add(self, pid: int, wants: float | None = None) -> None:
        """Hold one more process (all its threads); see `pepper.devices.device.Program.confine`."""

    def close(self) -> None:
        """Let go of every process."""


class Cycle:
    """The turns that devices take on the same cores: one process stops and continues those of all of them.

    It runs while a device takes part. Needs no privileges.

    Args:
        cores: The devices' cores; the signals are sent from another one where there is one.
        period_ms: Mean length of a cycle, in which each device has one turn.
    """

    def __init__(self, cores: Sequence[int], period_ms: float) -> None:
        self._cores, self._period_ms = cores, period_ms
        self._members = 0
        self._last = 0
        self._suspender: Process | None = None
        self._fillers: list[Process] = []

    def join(self) -> int:
        """Take part; returns the number of the turn."""
        if self._suspender is None:
            others = [core for core in host.allowed_cores() if core not in self._cores]
            self._suspender = Process("pepper.devices.suspender", others or list(self._cores))
            # The cores' other time is used, as it would be on a shared machine: a core that idles between the
            # devices' turns loses its caches and its clock, and the devices would pay for that.
            self._fillers = [Process("pepper.devices.filler", [core]) for core in self._cores]
            self.ask("start", fillers=[filler.pid for filler in self._fillers], period_ms=self._period_ms)
        self._members += 1
        self._last += 1
        return self._last

    @property
    def helpers(self) -> list[Process]:
        """The process that hands out the turns, and those that use the time in between."""
        return [*filter(None, [self._suspender]), *self._fillers]

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask the process that hands out the turns."""
        assert self._suspender is not None, "no device takes part"
        return self._suspender.request(op, timeout_s=TIMEOUT_S, **fields)[0]

    def leave(self) -> None:
        """Take part no more; the last one ends the processes."""
        self._members -= 1
        if self._members == 0 and self._suspender is not None:
            self._suspender.close()
            for filler in self._fillers:
                filler.kill()
                filler.close()
            self._suspender, self._fillers = None, []


class Suspend:
    """Stop and continue the processes of one device in its turn of a cycle.

    Args:
        share: CPU time of each core, 0 < share < 1.
        cycle: The turns on the device's cores.
    """

    method = "suspend"

    def __init__(self, share: float, cycle: Cycle) -> None:
        self._share, self._cycle = share, cycle
        self._turn = cycle.join()
        self._used = False

    @property
    def helpers(self) -> Sequence[Process]:
        """Whoever hands out the turns and fills the time between them."""
        return self._cycle.helpers

    def add(self, pid: int, wants: float | None = None) -> None:
        """Stop and continue this process with the others from now on."""
        self._cycle.ask("add", turn=self._turn, share=self._share, pid=pid, wants=wants)
        self._used = True

    def pause(self, pid: int) -> None:
        """Stop this process until it is added again."""
        with contextlib.suppress(MeasureError):  # the suspender is gone: so are its signals
            self._cycle.ask("pause", turn=self._turn, pid=pid)

    def given(self) -> tuple[float, float]:
        """Return how long the device's turns were since the first process was added, and that span, in s."""
        answer = self._cycle.ask("given", turn=self._turn)
        return answer["ran_s"], answer["wall_s"]

    def cycle_ms(self) -> float:
        """Return the mean length of a cycle since the first process was added."""
        answer = self._cycle.ask("given", turn=self._turn)
        return float(1000 * answer["wall_s"] / max(answer["turns"], 1))

    def close(self) -> None:
        """Stop stopping: every process continues."""
        if self._used:
            with contextlib.suppress(MeasureError):  # the suspender is gone: so are its signals
                self._cycle.ask("leave", turn=self._turn)
        self._cycle.leave()


class Cgroup:
    """A control group, version 2 or 1, with a CPU quota or a memory limit.

    The kernel applies a quota at its scheduler tick (4 ms at 250 Hz), so a short period is coarse.

    Args:
        controller: ``cpu`` or ``memory``.
        settings: Values by file name for each version, written in order.
        root: Where the cgroup file system is mounted.

    Raises:
        DeviceError: The controller is not writable here.
    """

    helpers: Sequence[Process] = ()
    _count = 0

    def __init__(
        self,
        controller: str,
        settings: dict[str, dict[str, str]],
        root: Path = CGROUP_ROOT,
    ) -> None:
        Cgroup._count += 1
        unified = (root / "cgroup.controllers").exists()
        self.method = "cgroup-v2" if unified else "cgroup-v1"
        parent = root if unified else root / controller
        self._folder = parent / f"pepper-{os.getpid()}-{Cgroup._count}"
        self._made = False
        try:
            if unified:
                _write(root / "cgroup.subtree_control", f"+{controller}")
            _remove_stale(parent)
            self._folder.mkdir()
            remove_at_end(self._folder)
            self._made = True
            for file, value in settings[self.method].items():
                _write(self._folder / file, value)
        except OSError as error:
            self.close()
            raise DeviceError(
                f"no writable cgroup {controller} controller ({error.filename}: {error.strerror});"
                f" run as root{' or set device.throttle=suspend' if controller == 'cpu' else ''}"
            ) from error

    def add(self, pid: int, wants: float | None = None) -> None:
        """Move the process into the group, where the system's scheduler decides who runs.

        Raises:
            MeasureError: It has ended.
        """
        try:
            _write(self._folder / "cgroup.procs", str(pid))
        except ProcessLookupError as error:
            raise MeasureError(f"process {pid} ended before it was held to its device's limits") from error

    def close(self) -> None:
        """Move what still runs back to the parent group and remove the group."""
        with contextlib.suppress(OSError):
            for pid in (self._folder / "cgroup.procs").read_text().split():
                _write(self._folder.parent / "cgroup.procs", pid)
        with contextlib.suppress(OSError):
            self._folder.rmdir()
        if self._made:
            removed(self._folder)
            self._made = False


def cpu_quota(share: float, cores: int, period_ms: float, root: Path = CGROUP_ROOT) -> Cgroup:
    """Return a group that gets this share of each of its cores.

    The period is longer than asked for where the quota would fall below what the kernel applies.
    """
    period_us = max(round(period_ms * 1000), round(LEAST_QUOTA_US / (share * cores)))
    quota_us = round(period_us * share * cores)
    return Cgroup(
        "cpu",
        {
            "cgroup-v2": {"cpu.max": f"{quota_us} {period_us}"},
            "cgroup-v1": {"cpu.cfs_period_us": str(period_us), "cpu.cfs_quota_us": str(quota_us)},
        },
        root,
    )


def memory_limit(memory_bytes: int, root: Path = CGROUP_ROOT) -> Cgroup:
    """Return a group whose processes together get at most this much memory (no swap)."""
    return Cgroup(
        "memory",
        {
            "cgroup-v2": {"memory.max": str(memory_bytes), "memory.swap.max": "0"},
            "cgroup-v1": {"memory.limit_in_bytes": str(memory_bytes)},
        },
        root,
    )


def _write(file: Path, text: str) -> None:
    with file.open("r+") as stream:  # the files exist; creating one is refused there
        stream.write(text)


def _remove_stale(parent: Path) -> None:
    """Remove the empty groups that killed runs left behind."""
    for folder in parent.glob("pepper-*"):
        name = GROUP_NAME.fullmatch(folder.name)
        if name and not psutil.pid_exists(int(name[1])):
            with contextlib.suppress(OSError):
                folder.rmdir()


def make_throttle(
    method: ThrottleMethod, share: float, cores: Sequence[int], period_ms: float, cycle: Cycle
) -> Throttle:
    """Return the throttle asked for; ``auto`` is suspend and resume, whose steps are the finer ones.

    Raises:
        DeviceError: The method asked for cannot be used here.
    """
    if method == ThrottleMethod.cgroup:
        return cpu_quota(share, len(cores), period_ms)
    return Suspend(share, cycle)
