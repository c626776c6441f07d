"""Is anything lost, doubled or left behind, whatever happens to a fleet's hosts?

A head and two hosts in network namespaces, each host with a small disk and a clock of its own. Each trial runs a sweep
whose cells are on both hosts, or serves requests with a real model in parts on both hosts and this machine, and does
something to a host, its link or the head at a random moment. A run must end with all done, or say in a line what was
lost. Then all is made whole again and, after a sweep, the same command runs once more: each cell must be finished
exactly once, none that was measured be measured again, each request be answered exactly once and rightly, and nothing
be left on any host. A trial that fails says its seed.

    python -m benchmarks.fleet_faults --faults 200 --seed 0

Needs root, iproute2 and, for clocks, a C compiler: a host's wall clock is set back for its own programs, TLS included,
by a library that they load first (benchmarks/rough/clock.c); its monotonic clock goes on, as on a real machine.
"""

import argparse
import importlib
import json
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import faults as serving
from benchmarks.common import print_table
from benchmarks.rough.desk import Command, Desk, Ended, Rig, adopt
from benchmarks.rough.hosts import HOSTS, Hosts
from benchmarks.rough_handling import IMPORTED
from pepper.config import DeviceConfig, HostsConfig, LoadConfig, SessionConfig
from pepper.config.hosting import HEAD
from pepper.errors import ExecutionError, PepperError
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Answer, Runner
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.hosts import reach

SWEEP = f"""# Four cells on two hosts.
name: hosts
axes:
  model: [tiny]
  device.host: [{", ".join(HOSTS)}]
  load: [idle, cpu50]
"""
CELL_S = 1.0
ON_HOSTS = ("device=local", "device.threads=1", "sweep.retest=0", "sweep.retries=0", "measure.max_samples=100000000")
PATIENCE_S = (3, 20)
LONGEST_S = 200.0
TIME_LIMIT_S = 5.0
PAUSE_S = 0.05
AFTERWARDS_S = 3.0
LEFT_S = 30.0
"""What nobody waits for ends within this: a block whose head has gone goes on to its end."""


@dataclass(frozen=True)
class Fault:
    """Something that is done to a fleet, and undone.

    Attributes:
        begin: Does it to a host.
        end: Undoes it.
        lasts_s: The shortest and the longest time between the two; None is until the run has ended.
    """

    begin: Callable[[Hosts, str], None]
    end: Callable[[Hosts, str], None]
    lasts_s: tuple[float, float] | None


def _nothing(hosts: Hosts, host: str) -> None:
    """It comes by itself."""


def _fault_table() -> dict[str, Fault]:
    def kill(hosts: Hosts, host: str) -> None:
        hosts.programs[host].kill()

    def send(number: signal.Signals) -> Callable[[Hosts, str], None]:
        return lambda hosts, host: hosts.programs[host].signal_all(number)

    def down(hosts: Hosts, host: str) -> None:
        hosts.plug(host, "down")

    def up(hosts: Hosts, host: str) -> None:
        hosts.plug(host, "up")

    def set_clock(behind_s: int) -> Callable[[Hosts, str], None]:
        def act(hosts: Hosts, host: str) -> None:
            clock = hosts.programs[host].clock
            assert clock is not None
            clock.set(-behind_s)

        return act

    return {
        "host killed": Fault(kill, Hosts.start, (0.1, 10)),
        "host frozen": Fault(send(signal.SIGSTOP), send(signal.SIGCONT), (1, 20)),
        "host unplugged": Fault(down, up, None),
        "link cut": Fault(down, up, (1, 60)),
        "head killed": Fault(lambda hosts, _: kill(hosts, HEAD), lambda hosts, _: hosts.start(HEAD), (0.1, 10)),
        "disk full": Fault(Hosts.fill, Hosts.free, None),
        "clock set back 10 min": Fault(set_clock(600), set_clock(0), None),
        "clock set back 2 h": Fault(set_clock(7200), set_clock(0), None),
        "certificate expired": Fault(_nothing, Hosts.renew, None),
    }


FAULTS = _fault_table()


@dataclass
class Outcome:
    """What a trial came to.

    Attributes:
        kind: What was done.
        work: ``sweep`` or ``plan``.
        ended: How the run ended, in its own words.
        cells_lost: Cells that were measured, or said to have failed, and are not in the store so; or measured again.
        cells_doubled: Cells that are finished in the store more than once.
        answered: Requests that were answered.
        requests: Requests that were not answered once and rightly, though the run went on.
        processes: What still runs on any host.
        other: What else was wrong.
        seconds: How long it took.
    """

    kind: str
    work: str
    ended: str = ""
    cells_lost: int = 0
    cells_doubled: int = 0
    answered: int = 0
    requests: list[str] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def broken(self) -> dict[str, object]:
        """All that is not as it should be, by name."""
        fine = ("kind", "work", "ended", "answered", "seconds")
        return {name: value for name, value in vars(self).items() if name not in fine and value}


class Bench:
    """What all trials share.

    Args:
        root: A folder for all.
        rig: A model, options and an empty database for sweeps.
        hosts: The head and its hosts.
    """

    def __init__(self, root: Path, rig: Rig, hosts: Hosts) -> None:
        self.root, self.rig, self.hosts = root, rig, hosts
        (self.rig.options / "sweep" / "hosts.yaml").write_text(SWEEP)
        devices = {
            name: FleetDevice(DeviceConfig(name=name, threads=1, cores=[0], host=host), LoadConfig(percent=0))
            for name, host in (("here", None), *((host, host) for host in HOSTS))
        }
        parts = root / "parts"
        parts.mkdir()
        self.served = serving.Rig("squeezenet", parts, Fleet(devices, everywhere([*devices], Link()), "here", "here"))
        usual = self.desk("usual", 20)
        whole = usual.copy(hosts.await_whole).end(LONGEST_S)
        if whole.status != 0:
            raise RuntimeError(f"the hosts do not join: {whole.said}")
        for again in ((), ("sweep.rerun=all",)):  # the first one calibrates
            done = usual.start(*usual.sweep, *again).end(LONGEST_S)
            if done.status != 0:
                raise RuntimeError(f"the undisturbed sweep failed: {done.said}")
        self.seconds = done.seconds
        """How long an undisturbed sweep takes."""

    def desk(self, name: str, patience_s: float) -> Desk:
        """Return a folder for a trial."""
        desk = Desk(self.rig, self.root / name)
        timing = (f"measure.min_seconds={CELL_S}", f"measure.max_seconds={CELL_S}")
        fleet = (f"hosts.folder={self.hosts.bundles}", f"hosts.patience_seconds={patience_s}")
        desk.sweep = ("+sweep=hosts", *ON_HOSTS, *timing, *fleet)
        return desk

    def serve(self, seed: int, seconds: float, patience_s: float, file: Path) -> int:
        """Serve requests for a while; what came of them is written to a file."""
        rng = random.Random(seed)
        reach.use(HostsConfig(self.hosts.bundles, patience_seconds=patience_s))
        outcome, answers, sent = serving.Outcome([]), list[Answer](), 0
        ended, began = "all answered", time.monotonic()
        try:
            first = self.served.layout(rng)
            assert first is not None
            with (
                tempfile.TemporaryDirectory() as folder,
                closing(Network(self.served.fleet, Path(folder))) as network,
                StagePool(self.served.fleet, SessionConfig(), TIME_LIMIT_S) as pool,
                Runner(
                    pool, network, first, time_limit_s=TIME_LIMIT_S, replan=lambda lost: self.served.layout(rng, lost)
                ) as runner,
            ):
                try:
                    while time.monotonic() - began < seconds or runner.pending:
                        if time.monotonic() - began < seconds:
                            runner.submit(self.served.samples[sent % len(self.served.samples)][0])
                            sent += 1
                        while (answer := runner.take(time.monotonic_ns() + round(PAUSE_S * 1e9))) is not None:
                            answers.append(answer)
                    ended = "; ".join((ended, *(f"lost {name}: {why}" for name, why in pool.lost.items())))
                except ExecutionError as error:
                    outcome.ended, ended = True, str(error)
                    if "here" not in pool.lost:
                        outcome.broken.append(f"gave up although a device was left: {error}")
            serving.judge(self.served, outcome, answers, sent)
        except PepperError as error:  # at the start, or while stages of the next plan start
            ended = f"not begun: {error}"
        file.write_text(json.dumps({**asdict(outcome), "said": ended, "sent": sent}))
        return 0


def trial(bench: Bench, kind: str, work: str, seed: int) -> Outcome:
    """Do one thing to the fleet while it works, make it whole again, and look at what is left."""
    rng, outcome, began = random.Random(seed), Outcome(kind, work), time.monotonic()
    fault, host, patience_s = FAULTS[kind], rng.choice(HOSTS), rng.choice(PATIENCE_S)
    at_s = 0.0 if kind == "disk full" else rng.uniform(0, 0.9 * bench.seconds)
    lasts_s = (
        None if fault.lasts_s is None else fault.lasts_s[0] * (fault.lasts_s[1] / fault.lasts_s[0]) ** rng.random()
    )
    desk = bench.desk(f"trial-{seed}", patience_s)
    if kind == "certificate expired":
        _await_expiry(bench, desk, host, at_s)
    elif at_s == 0.0:
        fault.begin(bench.hosts, host)
    if work == "sweep":
        command = desk.start()
    else:
        seconds = at_s + (12 if lasts_s is None else lasts_s) + AFTERWARDS_S
        command = desk.copy(lambda: bench.serve(seed, seconds, patience_s, desk.folder / "served.json"))
    _disturb(command, bench.hosts, host, fault, at_s, lasts_s)
    ended = command.end(LONGEST_S)
    if "Traceback" in ended.said or ended.seconds > LONGEST_S:
        outcome.other.append(f"after {ended.seconds:.0f} s: {ended.said[-1500:]}")
    whole = desk.copy(bench.hosts.await_whole).end(LONGEST_S)
    if whole.status != 0:
        outcome.other.append(f"the fleet is not whole: {whole.said[-800:]}")
    outcome.processes = bench.hosts.left(LEFT_S)
    if work == "sweep":
        _judge_sweep(desk, ended, outcome)
    elif ended.status == 0:
        found = json.loads((desk.folder / "served.json").read_text())
        outcome.answered, outcome.requests, outcome.ended = found["answered"], found["broken"], found["said"]
    else:
        outcome.other.append(f"exit status {ended.status}: {ended.said[-800:]}")
    outcome.seconds = time.monotonic() - began
    if not outcome.broken:
        shutil.rmtree(desk.folder)
    return outcome


def _await_expiry(bench: Bench, desk: Desk, host: str, before_s: float) -> None:
    """Let a host join with a certificate that expires soon, and wait until that is as near as this."""
    valid_s = before_s + 25
    expires = time.monotonic() + valid_s
    bench.hosts.let_expire(host, valid_s)
    bench.hosts.programs[host].kill()
    bench.hosts.start(host)
    desk.copy(bench.hosts.await_whole).end(LONGEST_S)
    time.sleep(max(0.0, expires - before_s - time.monotonic()))


def _disturb(command: Command, hosts: Hosts, host: str, fault: Fault, at_s: float, lasts_s: float | None) -> None:
    """Do something at its time while a command runs, and undo it at its time, or when the command has ended."""
    steps = [(at_s, fault.begin)] if at_s else []
    if lasts_s is not None:
        steps.append((at_s + lasts_s, fault.end))
    while command.runs and time.monotonic() - command.started < LONGEST_S:
        if steps and time.monotonic() - command.started >= steps[0][0]:
            steps.pop(0)[1](hosts, host)
        time.sleep(0.05)
    if lasts_s is None:
        fault.end(hosts, host)
    elif len(steps) == 1:
        steps[0][1](hosts, host)


def _judge_sweep(desk: Desk, first: Ended, outcome: Outcome) -> None:
    """Compare what a sweep said with what is in its store, and run it to its end."""
    failures = re.findall(r"FAILED: (.*)", first.said)
    outcome.ended = " | ".join(dict.fromkeys(failures)) or (first.said.strip().splitlines() or ["said nothing"])[-1]
    stored = _runs(desk)
    if first.status not in (0, 1, 2):
        outcome.other.append(f"exit status {first.status}: {first.said[-800:]}")
    if first.status < 2 and len(stored) != desk.cells:
        outcome.cells_lost += desk.cells - len(stored)
    if first.status == 0 and any("FINISHED" not in ends for ends in stored.values()):
        outcome.other.append("exit status 0, and not all is finished")
    if first.status == 1 and not failures:
        outcome.other.append(f"exit status 1, and no line that says why: {first.said[-800:]}")
    again = desk.start().end(LONGEST_S)
    if again.status != 0 or "Traceback" in again.said:
        outcome.other.append(f"again: exit status {again.status}: {again.said[-800:]}")
    stored = _runs(desk)
    finished = [ends["FINISHED"] for ends in stored.values()]
    outcome.cells_lost += desk.cells - sum(map(bool, finished)) + len(first.measured & again.measured)
    outcome.cells_doubled += sum(number - 1 for number in finished if number > 1)
    if any(ends["RUNNING"] for ends in stored.values()) or desk.waiting():
        outcome.other.append(f"said to be under way, or waiting: {desk.waiting()}")


def _runs(desk: Desk) -> dict[str, Counter[str]]:
    """Return how often each cell ended in which way, in the store."""
    with closing(sqlite3.connect(desk.file)) as store:
        found = store.execute(
            "SELECT cell.value, runs.status FROM runs JOIN tags kind USING (run_uuid) JOIN tags cell USING (run_uuid)"
            " WHERE lifecycle_stage = 'active' AND kind.key = 'pepper.kind' AND kind.value = 'cell'"
            " AND cell.key = 'pepper.cell'"
        ).fetchall()
    ends: dict[str, Counter[str]] = {}
    for cell, status in found:
        ends.setdefault(cell, Counter())[status] += 1
    return ends


def run(number: int, seed: int, only: Sequence[str] = ()) -> list[Outcome]:
    """Run trials one after the other, say what is wrong, and return what came of them."""
    for module in (*IMPORTED, "distributed"):  # once: trials are copies of this process
        importlib.import_module(module)
    adopt()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # disks, namespaces and hosts are taken away
    known = [kind for kind in only or FAULTS if "clock" not in kind or shutil.which("cc")]
    each = [(kind, work) for kind in known for work in ("sweep", "plan")]
    rng = random.Random(seed)
    chosen = [pair for _ in range(number // len(each) + 1) for pair in rng.sample(each, len(each))][:number]
    outcomes = []
    with ExitStack() as stack:
        root, shared = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        rig = Rig(shared)  # first: it ends all that runs below this process
        hosts = stack.enter_context(Hosts(root))
        bench = Bench(root, rig, hosts)
        print(f"an undisturbed sweep took {bench.seconds:.1f} s", flush=True)
        for index, (kind, work) in enumerate(chosen):
            outcomes.append(trial(bench, kind, work, seed + index))
            last = outcomes[-1]
            said = "; ".join(f"{name}: {value}" for name, value in last.broken.items()) or "whole"
            print(
                f"{index + 1}/{number} seed {seed + index} {kind}, {work}, {last.seconds:.0f} s: {said}"
                f" ({last.ended[:300]})",
                flush=True,
            )
    return outcomes


def main() -> None:
    """Run trials; the exit status is 1 if something was lost, doubled or left behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200, help="how many trials (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first; the next one's is higher by 1")
    parser.add_argument("--only", nargs="*", default=(), choices=list(FAULTS), metavar="KIND", help="only these kinds")
    options = parser.parse_args()
    outcomes = run(options.faults, options.seed, options.only)
    rows = []
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        rows.append([kind, *_counts([outcome for outcome in outcomes if outcome.kind == kind])])
    rows.append(["together", *_counts(outcomes)])
    print_table(
        f"{len(outcomes)} faults from seed {options.seed}",
        ["fault", "sweeps", "plans", "cells lost", "doubled", "answered", "requests lost, doubled", "processes", "else",
         "longest s"],
        rows,
    )  # fmt: skip
    if not shutil.which("cc"):
        print("no clock was set back: there is no C compiler (cc)")
    sys.exit(1 if any(outcome.broken for outcome in outcomes) else 0)


def _counts(outcomes: Sequence[Outcome]) -> list[str]:
    counts = [
        sum(o.work == "sweep" for o in outcomes),
        sum(o.work == "plan" for o in outcomes),
        sum(o.cells_lost for o in outcomes),
        sum(o.cells_doubled for o in outcomes),
        sum(o.answered for o in outcomes),
        sum(len(o.requests) for o in outcomes),
        sum(len(o.processes) for o in outcomes),
        sum(len(o.other) for o in outcomes),
    ]
    return [*map(str, counts), f"{max(o.seconds for o in outcomes):.0f}"]


if __name__ == "__main__":
    main()
