"""What the control groups of this process leave it: CPU time and memory, from its own group up to the root.

A group is held to its ancestors' limits, too, so the least of each counts (cgroups(7); the kernel's documents on
``cpu.max`` and ``cpu.cfs_quota_us``). Which groups these are, ``/proc/self/cgroup`` and ``/proc/self/mountinfo`` say,
for version 2, version 1, and both side by side. Cores that a cpuset takes away are missing in the affinity already.
"""

import re
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc/self")
UNLIMITED_BYTES = 2**60  # version 1 writes the largest multiple of a page for no limit


@dataclass(frozen=True)
class Quota:
    """CPU time that a group may use.

    Attributes:
        cores: Of how many cores.
        group: The group's folder.
    """

    cores: float
    group: Path


def groups(controller: str, proc: Path = PROC) -> list[Path]:
    """Return the folders of this process's groups under a controller, its own first, as far up as can be seen."""
    member = dict(_members(proc))
    for kind, point, root, options in _mounts(proc):
        if kind == "cgroup" and controller in options and controller in member:
            return _upwards(point, root, member[controller])
    for kind, point, root, _ in _mounts(proc):
        if kind == "cgroup2" and "" in member:
            return _upwards(point, root, member[""])
    return []


def cpu_quota(proc: Path = PROC) -> Quota | None:
    """Return the least CPU quota over this process; None if there is none."""
    found = [Quota(cores, group) for group in groups("cpu", proc) if (cores := _cores(group)) is not None]
    return min(found, key=lambda quota: quota.cores, default=None)


def throttled_periods(proc: Path = PROC) -> int:
    """Return in how many periods so far a quota over this process was used up, and everything under it stopped."""
    return sum(_entry(group / "cpu.stat", "nr_throttled") for group in groups("cpu", proc))


def free_memory_bytes(proc: Path = PROC) -> int | None:
    """Return how much more memory this process's groups may take, caches given back; None if that is not limited."""
    left = []
    for group in groups("memory", proc):
        for limit_file, used_file, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _number(group / limit_file), _number(group / used_file)
            if limit is not None and used is not None and limit < UNLIMITED_BYTES:
                left.append(max(0, limit - used + _entry(group / "memory.stat", cache)))
    return min(left, default=None)


def _members(proc: Path) -> list[tuple[str, str]]:
    """Return each controller with the path of this process's group; version 2 is the controller without a name."""
    lines = re.findall(r"^\d+:([^:\n]*):(.+)$", _read(proc / "cgroup") or "", re.MULTILINE)
    return [(name, path) for controllers, path in lines for name in controllers.split(",")]


_MOUNT = re.compile(r"^\S+ \S+ \S+ (\S+) (\S+) .* - (cgroup2?) \S+ (\S+)$", re.MULTILINE)


def _mounts(proc: Path) -> list[tuple[str, Path, str, list[str]]]:
    """Return type, mount point, root within the hierarchy and options of each mounted hierarchy (proc(5))."""
    return [
        (kind, Path(_plain(point)), _plain(root), options.split(","))
        for root, point, kind, options in _MOUNT.findall(_read(proc / "mountinfo") or "")
    ]


def _plain(text: str) -> str:
    return re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), text)


def _upwards(point: Path, root: str, member: str) -> list[Path]:
    """Return a group's folder and those above it up to the mount point, which is all that can be seen."""
    below = Path(member)
    inside = below.relative_to(root) if below.is_relative_to(root) and ".." not in below.parts else Path()
    return [point / inside, *(point / parent for parent in inside.parents)]


def _cores(group: Path) -> float | None:
    text = _read(group / "cpu.max")
    if text is None:
        text = f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    found = re.fullmatch(r"(\d+) (\d+)", text)
    return int(found[1]) / int(found[2]) if found and int(found[2]) else None


def _number(file: Path) -> int | None:
    text = _read(file)
    return int(text) if text and text.isdecimal() else None


def _entry(file: Path, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", _read(file) or "", re.MULTILINE)
    return int(found[1]) if found else 0


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
