"""Limits of this process's own control groups: on machines made of files, and in a group that the test makes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT

from pepper.devices import checkup, own_limits
from pepper.devices.checkup import OK, WARN

ENTRIES = {
    "v1": ("4:cpu,cpuacct:/a/b\n0::/elsewhere", "/", "cgroup", "rw,cpu,cpuacct"),
    "v2": ("0::/a/b", "/", "cgroup2", "rw,nsdelegate"),
    "v2 in a container that sees the host's paths": ("0::/docker/a/b", "/docker", "cgroup2", "rw"),
}


@pytest.fixture(params=list(ENTRIES))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A process in the group ``a/b``: its folder in proc, and the mount point (with a space)."""
    member, root, kind, options = ENTRIES[request.param]
    point, proc = tmp_path / "mount point", tmp_path / "proc"
    proc.mkdir()
    (point / "a" / "b").mkdir(parents=True)
    (proc / "cgroup").write_text(f"7:memory:/x\n{member}\n")
    where = str(point).replace(" ", "\\040")
    (proc / "mountinfo").write_text(
        f"31 23 0:28 / /proc rw - proc proc rw\n32 31 0:29 {root} {where} rw shared:1 - {kind} none {options}\n"
    )
    return proc, point


def quota(folder: Path, proc: Path, cores: float | None) -> None:
    if "cgroup2" in (proc / "mountinfo").read_text():
        (folder / "cpu.max").write_text("max 100000\n" if cores is None else f"{round(cores * 1e5)} 100000\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text("-1\n" if cores is None else f"{round(cores * 1e5)}\n")
        (folder / "cpu.cfs_period_us").write_text("100000\n")


def test_the_least_quota_up_to_the_root_counts(machine: tuple[Path, Path]) -> None:
    proc, point = machine
    assert own_limits.groups("cpu", proc) == [point / "a" / "b", point / "a", point]
    assert own_limits.cpu_quota(proc) is None
    assert checkup.own_quota(proc).level == OK
    for folder, cores in ((point / "a" / "b", 2.0), (point / "a", 0.5), (point, None)):
        quota(folder, proc, cores)
    assert own_limits.cpu_quota(proc) == own_limits.Quota(0.5, point / "a")
    for folder, count in ((point / "a" / "b", 3), (point / "a", 4)):
        (folder / "cpu.stat").write_text(f"nr_periods 9\nnr_throttled {count}\nthrottled_usec 5\n")
    assert own_limits.throttled_periods(proc) == 7
    found = checkup.own_quota(proc)
    assert (found.level, found.found.split(" (")[0]) == (WARN, "0.5 cores")
    assert "7 periods" in found.found


@pytest.mark.parametrize("text", ["", "7:memory", "0::/../..", "garbage\x00:"])
def test_what_cannot_be_followed_is_no_limit(tmp_path: Path, text: str) -> None:
    (tmp_path / "cgroup").write_text(text)
    (tmp_path / "mountinfo").write_text("31 23 0:28\n32 31 0:29 / /nowhere rw - cgroup2\n")
    assert own_limits.cpu_quota(tmp_path) is None
    assert own_limits.throttled_periods(tmp_path) == 0
    assert own_limits.free_memory_bytes(tmp_path) is None


def test_memory_that_the_groups_leave(tmp_path: Path) -> None:
    proc, point = tmp_path / "proc", tmp_path / "memory"
    proc.mkdir()
    (point / "a").mkdir(parents=True)
    (proc / "cgroup").write_text("4:memory:/a\n")
    (proc / "mountinfo").write_text(f"35 31 0:32 / {point} rw - cgroup cgroup rw,memory\n")
    for folder, limit, used, cached in ((point / "a", 1000, 900, 50), (point, 2**63 - 4096, 2000, 0)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {cached}\n")
    assert own_limits.free_memory_bytes(proc) == 150


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with half a core, below this process's own."""
    own = own_limits.groups("cpu")
    if not own or (not (own[0] / "cpu.cfs_quota_us").exists() and not own[0].joinpath("cpu.max").exists()):
        pytest.skip("no control group for CPU time here")
    folder = own[0] / f"test-{os.getpid()}"
    try:
        folder.mkdir()
        if (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text("50000 100000")
        else:
            (folder / "cpu.cfs_quota_us").write_text("50000")
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    yield folder
    folder.rmdir()


def test_a_process_in_a_group_finds_its_quota_and_that_it_was_used_up(group: Path) -> None:
    program = (
        f"import os, time; from pathlib import Path; Path('{group}/cgroup.procs').write_text(str(os.getpid()))\n"
        "from pepper.devices import own_limits\n"
        "before = own_limits.throttled_periods(); end = time.perf_counter() + 0.5\n"
        "while time.perf_counter() < end: pass\n"
        "print(own_limits.cpu_quota().cores, own_limits.throttled_periods() > before)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "0.5 True\n"
