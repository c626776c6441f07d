"""A share of CPU time is what a process really gets, and nothing is left behind."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from harness import alive, composed

from pepper.devices import host, throttle
from pepper.devices.cores import CoresDevice, resolve, together
from pepper.devices.process import Process
from pepper.errors import ConfigError, DeviceError, MeasureError

pytestmark = pytest.mark.quiet

CORE = host.allowed_cores()[-1]
ROOT = throttle.CGROUP_ROOT


def can_make(controller: str) -> bool:
    """Whether groups of this controller can be made here."""
    probe = ROOT / controller / "pepper-0-0"
    try:
        if (ROOT / "cgroup.controllers").exists():
            throttle._write(ROOT / "cgroup.subtree_control", f"+{controller}")
            probe = ROOT / "pepper-0-0"
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


needs_cpu_group = pytest.mark.skipif(not can_make("cpu"), reason="no writable cgroup cpu controller here")
needs_memory_group = pytest.mark.skipif(not can_make("memory"), reason="no writable cgroup memory controller here")


@pytest.fixture
def spinner() -> Iterator[Process]:
    with Process("programs", [CORE]) as process:
        process.request("cpu", timeout_s=10)
        yield process


def spin(process: Process) -> float:
    """The CPU time that a busy process gets, as a fraction of wall time."""
    return float(process.request("spin", timeout_s=10, seconds=0.4)[0]["fraction"])


def assert_share(process: Process, limit: throttle.Throttle, share: float) -> None:
    """Under the limit, a busy process gets the share, within 10 %; other work can only take from it."""
    free = max(spin(process) for _ in range(2))
    limit.add(process.pid)
    seen: list[float] = []
    while len(seen) < 6:
        seen.append(spin(process))
        if 0.9 * share * free <= seen[-1] <= 1.1 * share:
            return
    pytest.fail(f"{seen} of a core, asked for {share} ({free} without a limit)")


@pytest.mark.parametrize(("share", "period_ms"), [(0.25, 3.0), (0.5, 3.0), (0.75, 3.0), (0.5, 20.0)])
def test_suspend_gives_the_share(spinner: Process, share: float, period_ms: float) -> None:
    limit = throttle.Suspend(share, throttle.Cycle([CORE], period_ms))
    try:
        assert_share(spinner, limit, share)
    finally:
        limit.close()


def test_suspended_processes_share_the_share_and_go_on_afterwards() -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(Process("programs", [CORE])) for _ in range(2)]
        limit = throttle.Suspend(0.5, throttle.Cycle([CORE], 3.0))
        for process in processes:
            process.request("cpu", timeout_s=10)
            limit.add(process.pid)
        limit.close()
        for process in processes:
            assert psutil.Process(process.pid).status() != psutil.STATUS_STOPPED
            process.request("cpu", timeout_s=10)


def test_a_paused_process_takes_no_turn() -> None:
    with ExitStack() as stack:
        paused, working = (stack.enter_context(Process("programs", [CORE])) for _ in range(2))
        limit = throttle.Suspend(0.5, throttle.Cycle([CORE], 3.0))
        stack.callback(limit.close)
        for process in (paused, working):
            process.request("cpu", timeout_s=10)
            limit.add(process.pid)
        for _ in range(2):
            limit.pause(paused.pid)
            limit.pause(paused.pid)  # once more changes nothing
            state = {psutil.Process(paused.pid).status() for _ in range(200) if time.sleep(0.0005) is None}
            assert state == {psutil.STATUS_STOPPED}
            assert working.request("cpu", timeout_s=10)
            limit.add(paused.pid)
            assert paused.request("cpu", timeout_s=10)


@pytest.mark.parametrize("wants", [0.25, 0.9])
def test_a_neighbour_gets_its_fair_part_of_a_device(wants: float) -> None:
    with ExitStack() as stack:
        program, neighbour = (stack.enter_context(Process("programs", [CORE])) for _ in range(2))
        limit = throttle.Suspend(0.5, throttle.Cycle([CORE], 3.0))
        stack.callback(limit.close)
        for process, part in ((program, None), (neighbour, wants)):
            process.request("cpu", timeout_s=10)
            limit.add(process.pid, part)
        with ThreadPoolExecutor() as pool:
            used, given = pool.map(spin, (program, neighbour))
        assert given / (used + given) == pytest.approx(min(wants, 0.5), abs=0.06)
        limit.add(neighbour.pid, 0.0)
        assert neighbour.request("cpu", timeout_s=10), "who wants nothing is left alone"


@needs_cpu_group
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_cgroup_gives_the_share(spinner: Process, share: float) -> None:
    limit = throttle.cpu_quota(share, 1, 10.0)
    try:
        assert_share(spinner, limit, share)
    finally:
        limit.close()
    assert not list(ROOT.glob(f"**/pepper-{os.getpid()}-*"))
    assert spinner.request("cpu", timeout_s=10)


@needs_cpu_group
def test_stale_groups_are_removed_and_others_left() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    root = ROOT if (ROOT / "cgroup.controllers").exists() else ROOT / "cpu"
    stale, ours = root / f"pepper-{gone.pid}-1", root / f"pepper-{os.getpid()}-999"
    foreign = root / "pepper-of-somebody"
    for folder in (stale, ours, foreign):
        folder.mkdir()
    try:
        throttle.cpu_quota(0.5, 1, 10.0).close()
        assert not stale.exists()
        assert ours.exists()
        assert foreign.exists()
    finally:
        for folder in (stale, ours, foreign):
            if folder.exists():
                folder.rmdir()


def fake_tree(root: Path, version: int) -> Path:
    """Folders like a cgroup mount's, with files that a new group is born with."""
    if version == 2:
        (root / "cgroup.controllers").write_text("cpu memory\n")
        (root / "cgroup.subtree_control").touch()
        (root / "cgroup.procs").touch()
    else:
        for controller in ("cpu", "memory"):
            (root / controller).mkdir()
            (root / controller / "cgroup.procs").touch()
    return root


FILES = ("cgroup.procs", "cpu.max", "cpu.cfs_period_us", "cpu.cfs_quota_us", "memory.max", "memory.swap.max")


@pytest.fixture
def born_with_files(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def mkdir(self: Path, *args: object, **kwargs: object) -> None:
        make(self, *args, **kwargs)  # type: ignore[arg-type]
        if self.name.startswith("pepper-"):
            for name in (*FILES, "memory.limit_in_bytes"):
                (self / name).touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)


@pytest.mark.usefixtures("born_with_files")
@pytest.mark.parametrize(
    ("version", "share", "cores", "period_ms", "expected"),
    [
        (2, 0.5, 1, 10.0, {"cpu.max": "5000 10000"}),
        (2, 0.5, 2, 10.0, {"cpu.max": "10000 10000"}),
        (2, 0.25, 1, 3.0, {"cpu.max": "1000 4000"}),  # the kernel applies no quota under 1 ms
        (1, 0.25, 1, 3.0, {"cpu.cfs_period_us": "4000", "cpu.cfs_quota_us": "1000"}),
        (1, 0.75, 2, 20.0, {"cpu.cfs_period_us": "20000", "cpu.cfs_quota_us": "30000"}),
    ],
)
def test_quota_files(
    tmp_path: Path, version: int, share: float, cores: int, period_ms: float, expected: dict[str, str]
) -> None:
    root = fake_tree(tmp_path, version)
    group = throttle.cpu_quota(share, cores, period_ms, root)
    assert group.method == f"cgroup-v{version}"
    (folder,) = root.glob("**/pepper-*")
    group.add(4242)
    assert {name: (folder / name).read_text() for name in expected} == expected
    assert (folder / "cgroup.procs").read_text() == "4242"
    if version == 2:
        assert (root / "cgroup.subtree_control").read_text() == "+cpu"
    group.close()
    assert (folder.parent / "cgroup.procs").read_text() == "4242", "what still runs moves back"


@pytest.mark.usefixtures("born_with_files")
def test_memory_files(tmp_path: Path) -> None:
    group = throttle.memory_limit(2**20, fake_tree(tmp_path, 2))
    (folder,) = tmp_path.glob("pepper-*")
    assert (folder / "memory.max").read_text() == "1048576"
    assert (folder / "memory.swap.max").read_text() == "0"
    group.close()


def test_no_cgroup_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError, match=r"no writable cgroup cpu controller .*run as root or set device.throttle=suspend$"
    ):
        throttle.cpu_quota(0.5, 1, 10.0, tmp_path)
    with pytest.raises(DeviceError, match=r"no writable cgroup memory controller .*run as root$"):
        throttle.memory_limit(2**20, tmp_path)


@needs_memory_group
def test_a_greedy_program_fails_clearly() -> None:
    spec = resolve(composed("device=share100", f"device.memory_bytes={256 * 2**20}").device)
    with CoresDevice(spec) as device:
        process = device.start("programs")
        process.request("cpu", timeout_s=10)
        process.confine()
        assert process.request("grab", timeout_s=10, mebibytes=16)[0]["bytes"] == 16 * 2**20
        with pytest.raises(MeasureError, match="killed by SIGKILL, likely out of memory"):
            process.request("grab", timeout_s=10, mebibytes=512)
    assert not list(ROOT.glob(f"**/pepper-{os.getpid()}-*"))


@pytest.mark.parametrize("method", ["suspend", pytest.param("cgroup", marks=needs_cpu_group)])
def test_leaving_a_device_leaves_nothing_behind(method: str, started: list[psutil.Process]) -> None:
    spec = resolve(composed("device=share25", f"device.throttle={method}").device)
    me = psutil.Process()
    before = set(me.children())
    with suppress(KeyboardInterrupt), CoresDevice(spec) as device:
        for _ in range(2):
            process = device.start("programs")
            process.request("cpu", timeout_s=10)
            process.confine()
        started += set(me.children()) - before
        assert device.throttle_method.startswith(method)
        raise KeyboardInterrupt
    assert len(started) >= 2
    assert alive(started) == []
    assert not list(ROOT.glob(f"**/pepper-{os.getpid()}-*"))


def test_a_dead_process_does_not_stop_the_throttle(spinner: Process) -> None:
    limit = throttle.Suspend(0.5, throttle.Cycle([CORE], 3.0))
    try:
        with Process("programs", [CORE]) as victim:
            victim.request("cpu", timeout_s=10)
            limit.add(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)
        assert_share(spinner, limit, 0.5)
    finally:
        limit.close()


@pytest.mark.parametrize("shares", [(0.5, 0.25), (0.2, 0.3, 0.5)])
def test_devices_on_one_core_get_their_shares(shares: tuple[float, ...], started: list[psutil.Process]) -> None:
    one = resolve(composed("device=share50").device)
    specs = [replace(one, name=f"share{share:g}", share=share) for share in shares]
    with ExitStack() as stack:
        devices = [stack.enter_context(device) for device in together(specs)]
        processes = [device.start("programs") for device in devices]
        for process in processes:
            process.request("cpu", timeout_s=10)
            process.confine()
        # All want the core at once; what one of them gets must not depend on what the others do.
        with ThreadPoolExecutor() as pool:
            seen = list(pool.map(spin, processes))
        assert seen == pytest.approx(shares, rel=0.25)
        for device, share in zip(devices, shares, strict=True):
            ran_s, wall_s = device.given() or (0.0, 1.0)
            assert ran_s / wall_s == pytest.approx(share, rel=0.1)
        started += psutil.Process().children()
    assert alive(started) == []


def test_a_device_leaves_while_another_goes_on() -> None:
    one = resolve(composed("device=share50").device)
    stays, leaves = together([replace(one, name="stays"), replace(one, name="leaves")])
    with stays, stays.start("programs") as process:
        process.request("cpu", timeout_s=10)
        with leaves:
            for device in (stays, leaves):
                program = process if device is stays else leaves.start("programs")
                program.confine()
            spin(process)
        assert spin(process) == pytest.approx(0.5, rel=0.25)
        ran_s, wall_s = stays.given() or (0.0, 1.0)
        assert ran_s / wall_s == pytest.approx(0.5, rel=0.1)


def test_a_core_is_not_given_twice() -> None:
    one = resolve(composed("device=share50").device)
    with pytest.raises(ConfigError, match=rf"core {CORE} is wanted 1.25 times \(a 0.5, b 0.75\); give a device other"):
        together([replace(one, name="a"), replace(one, name="b", share=0.75)])
    with pytest.raises(ConfigError, match=r"a 0.5, b 0.5 share core .* but not all their cores and device.period_ms"):
        together([replace(one, name="a"), replace(one, name="b", period_ms=9.0)])
