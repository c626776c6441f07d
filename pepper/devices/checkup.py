"""What hurts measurement on this machine, and how to mend it."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from pepper.devices import host, own_limits
from pepper.devices.throttle import CGROUP_ROOT, cpu_quota, memory_limit
from pepper.errors import DeviceError

OK, WARN, FAIL = "OK", "WARN", "FAIL"
FAST_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "xen")
HOT_C = 85.0
BUSY_PERCENT = 10.0  # as LimitsConfig.foreign_percent and steal_percent: beyond, profiles come out INVALID
STEAL_PERCENT = 5.0
LEAST_MEMORY_BYTES = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``OK``, ``WARN`` (figures suffer) or ``FAIL`` (pepper cannot work).
        what: What was looked at.
        found: What was found.
        fix: How to mend it; empty where all is well.
    """

    level: str
    what: str
    found: str
    fix: str = ""


def checkup(cpu: Path = host.CPU, cgroup_root: Path = CGROUP_ROOT, seconds: float = 1.0) -> list[Finding]:
    """Look at this machine.

    Args:
        cpu: The kernel's folder about processors.
        cgroup_root: Where control groups are mounted.
        seconds: How long other work is watched.
    """
    cores = host.allowed_cores()
    return [
        governor(),
        turbo(cpu),
        heat(),
        affinity(cores),
        siblings(cores, cpu),
        own_quota(),
        cgroups(cgroup_root),
        realtime(),
        *neighbours(cores, seconds),
        memory(),
        clock(cpu),
    ]


def governor() -> Finding:
    """Look at what sets the processor's frequency."""
    found = host.state()["governor"]
    if found == ["unknown"]:
        return Finding(OK, "governor", "not visible here: the host or the hypervisor decides")
    if found == ["performance"]:
        return Finding(OK, "governor", "performance")
    fix = "sudo cpupower frequency-set -g performance"
    return Finding(WARN, "governor", f"{', '.join(found)}: the frequency follows the load", fix)


def turbo(cpu: Path) -> Finding:
    """Look at whether the processor may run above its nominal frequency, as heat and neighbours allow."""
    for file, on, off in (("intel_pstate/no_turbo", "0", "1"), ("cpufreq/boost", "1", "0")):
        value = _read(cpu / file)
        if value == on:
            return Finding(WARN, "turbo", "on: speed depends on heat", f"echo {off} | sudo tee {cpu / file}")
        if value is not None:
            return Finding(OK, "turbo", "off")
    return Finding(OK, "turbo", "not visible here")


def heat() -> Finding:
    """Look at temperatures, and at how often heat has slowed the processor since boot."""
    state = host.state()
    hottest = max((value for values in state["temperature_c"].values() for value in values), default=None)
    shown = "no sensor visible here" if hottest is None else f"{hottest:.0f} degrees Celsius"
    if state["throttle_count"]:
        found = f"{shown}; slowed {state['throttle_count']} times since boot"
        return Finding(WARN, "heat", found, "cool the machine, or cap its frequency")
    if hottest is not None and hottest >= HOT_C:
        return Finding(WARN, "heat", shown, "let it cool down before measuring")
    return Finding(OK, "heat", shown)


def affinity(cores: Sequence[int]) -> Finding:
    """Look at which cores pepper may use."""
    present = os.cpu_count() or 1
    found = f"{len(cores)} of {present} cores allowed ({', '.join(map(str, cores))})"
    if len(cores) == 1:
        fix = "allow two or more cores (taskset, docker --cpuset-cpus): one measures, another keeps order"
        return Finding(WARN, "cores", found, fix)
    return Finding(OK, "cores", found)


def siblings(cores: Sequence[int], cpu: Path) -> Finding:
    """Look for allowed cores that are two threads of one physical core."""
    groups = {_read(cpu / f"cpu{core}/topology/thread_siblings_list") or str(core) for core in cores}
    shared = sorted(group for group in groups if "," in group or "-" in group)
    if shared:
        found = f"cores {'; '.join(shared)} share a physical core each: a load on one slows the other"
        return Finding(
            WARN, "SMT", found, "echo off | sudo tee /sys/devices/system/cpu/smt/control, or set device.cores"
        )
    return Finding(OK, "SMT", "each core is a physical one, as far as this system tells")


def own_quota(proc: Path = own_limits.PROC) -> Finding:
    """Look for a CPU quota on this process: it stops everything for milliseconds when it is used up."""
    quota = own_limits.cpu_quota(proc)
    if quota is None:
        return Finding(OK, "CPU quota", "none on this process's control groups")
    found = f"{quota.cores:.2g} cores ({quota.group}): the kernel stops all work when it is used up"
    if periods := own_limits.throttled_periods(proc):
        found += f", as in {periods} periods so far"
    return Finding(
        WARN,
        "CPU quota",
        found,
        "give whole cores instead (docker --cpuset-cpus, Kubernetes static policy, systemd AllowedCPUs=)",
    )


def cgroups(root: Path) -> Finding:
    """Look at whether devices can be made by control groups."""
    try:
        cpu_quota(0.5, 1, 10.0, root).close()
        memory_limit(2**30, root).close()
    except DeviceError as error:
        return Finding(
            WARN, "control groups", str(error).split(";")[0], "run as root for device.throttle=cgroup and memory limits"
        )
    return Finding(OK, "control groups", "writable: device.throttle=cgroup and device.memory_bytes work")


def realtime() -> Finding:
    """Look at whether a process may ask for real-time priority, which keeps shares of a core exact."""
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, policy, priority)
    except PermissionError:
        fix = "run as root, or grant it: setcap cap_sys_nice+ep, docker --cap-add SYS_NICE"
        return Finding(WARN, "real-time priority", "not permitted: shares of a core are less exact", fix)
    return Finding(OK, "real-time priority", "permitted")


def neighbours(cores: Sequence[int], seconds: float) -> list[Finding]:
    """Watch for a moment what else uses the cores, and what the hypervisor keeps."""
    before = {process.pid: _cpu_s(process) for process in psutil.process_iter()}
    times = host.CoreTimes(list(cores))
    time.sleep(seconds)
    busy_s, steal_s = times.since_start()
    used = {process: _cpu_s(process) - before.get(process.pid, 0.0) for process in psutil.process_iter()}
    busy, steal = (100 * value / (len(cores) * seconds) for value in (busy_s, steal_s))
    found = f"{busy:.0f} % of the cores' time used"
    if busy > BUSY_PERCENT:
        worst = max(used, key=lambda process: used[process])
        with_name = f"{found}, most by {_name(worst)} (pid {worst.pid})" if used[worst] > 0 else found
        first = Finding(WARN, "other work", with_name, "end it, or keep it off with taskset")
    else:
        first = Finding(OK, "other work", found)
    stolen = f"{steal:.0f} % kept by the hypervisor"
    if steal > STEAL_PERCENT:
        return [first, Finding(WARN, "steal", stolen, "use a machine with dedicated cores, or measure at another time")]
    return [first, Finding(OK, "steal", stolen)]


def memory() -> Finding:
    """Look at free memory and at swap."""
    free, swap = host.state()["memory_available_bytes"], psutil.swap_memory().used
    found = f"{free / 2**30:.1f} GiB free, {swap / 2**20:.0f} MiB swapped out"
    if swap or free < LEAST_MEMORY_BYTES:
        return Finding(
            WARN, "memory", found, "free memory, then sudo swapoff -a: what is swapped in costs milliseconds"
        )
    return Finding(OK, "memory", found)


def clock(cpu: Path) -> Finding:
    """Look at the clock that inferences are timed by."""
    source = _read(cpu.parent / "clocksource/clocksource0/current_clocksource")
    if source is None or source in FAST_CLOCKS:
        return Finding(OK, "clock", source or "not visible here")
    fix = "choose one of available_clocksource there, such as tsc"
    return Finding(WARN, "clock", f"{source}: slow to read, coarse for models of microseconds", fix)


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "a process that has ended"
