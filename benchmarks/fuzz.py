"""Does anything that comes from outside end in more than one clear line?

Inputs that pepper itself made (models, values, plans, manifests, records, configurations, registry files, caches,
messages between processes) are damaged at random: fields of another type, numbers that are none or too large, names
that lead elsewhere, bits, bytes and lengths, nesting, links. Each is put through the door that takes such a thing, in a
process with a limit on its memory and of its time. It may be taken or refused in a line; counted is what else happens.
Every 50th also goes through the command line. What a run finds can be seen again: ``--seed N --only NUMBER``.

    python -m benchmarks.fuzz --inputs 3000 --seed 0
"""

import argparse
import collections
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from benchmarks.common import print_table
from benchmarks.fuzzing.doors import DOORS, make_originals
from benchmarks.fuzzing.worker import FAULTS, STACK, TRYING, Outcome, work

LIMIT_S = 20.0
COMMAND_LIMIT_S = 60.0  # most of it is what any command takes to start beside another
START_LIMIT_S = 300.0


class Laboratory:
    """Processes that try inputs one by one; one that dies or hangs is replaced.

    Args:
        originals: The folder of the originals.
        homes: Where the processes may write.
        seed: Of all inputs.
        count: How many processes.
        every: Every which input also goes through the command line; 0: none.
    """

    def __init__(self, originals: Path, homes: Path, seed: int, count: int, every: int) -> None:
        self._originals, self._homes, self._seed, self._every = originals, homes, seed, every
        self._context = multiprocessing.get_context("spawn")
        self._started = 0
        self._count = count

    def try_all(self, numbers: list[int]) -> list[Outcome]:
        """Try these inputs, and return what came of each."""
        waiting = collections.deque(numbers)
        outcomes: list[Outcome] = []
        busy: dict[Connection, _Trial] = {}
        for _ in range(min(self._count, len(numbers))):
            self._start(busy)
        while busy:
            ready = wait(list(busy), timeout=0.5)
            for connection, trial in list(busy.items()):
                fault = None
                if connection in ready:
                    try:
                        said = connection.recv()
                    except EOFError:
                        trial.process.join()
                        if trial.outcome.number < 0:
                            sys.exit("the originals are not taken: see above")
                        fault = ("crash", f"exit status {trial.process.exitcode}")
                    else:
                        self._hear(connection, trial, said, waiting, outcomes)
                        if trial.deadline is None:
                            del busy[connection]
                elif trial.deadline is not None and time.monotonic() > trial.deadline:
                    trial.process.kill()
                    trial.process.join()
                    fault = ("hang", f"no answer within {LIMIT_S:g} s")
                if fault is not None:
                    detail, where = _stack(trial.home, fault[1])
                    outcomes.append(replace(trial.outcome, kind=fault[0], detail=detail, where=where))
                    del busy[connection]
                    if waiting:
                        self._start(busy)
        return outcomes

    def _hear(
        self,
        connection: Connection,
        trial: "_Trial",
        said: Outcome | None,
        waiting: collections.deque[int],
        outcomes: list[Outcome],
    ) -> None:
        """Take what a process says: that it is ready, what it tries, or what came of that; then it gets the next."""
        if said is not None and said.kind == TRYING:
            trial.outcome = said
            return
        if said is not None:
            outcomes.append(said)
        if not waiting:
            connection.send(None)
            trial.process.join()
            trial.deadline = None
            return
        number = waiting.popleft()
        connection.send(number)
        trial.outcome = Outcome(number, "", "", TRYING)
        trial.deadline = time.monotonic() + LIMIT_S
        if self._every and number % self._every == 0:
            trial.deadline += COMMAND_LIMIT_S

    def _start(self, busy: dict[Connection, "_Trial"]) -> None:
        home = self._homes / f"{self._started}"
        self._started += 1
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, self._originals, home, self._seed, self._every))
        process.start()
        theirs.close()
        busy[ours] = _Trial(process, home, Outcome(-1, "", "", TRYING), time.monotonic() + START_LIMIT_S)


@dataclass
class _Trial:
    """A process and what it tries."""

    process: multiprocessing.process.BaseProcess
    home: Path
    outcome: Outcome
    deadline: float | None


def _stack(home: Path, said: str) -> tuple[str, str]:
    """Say where a process was, of what it left."""
    file = home / STACK
    lines = [line.strip() for line in file.read_text().splitlines()] if file.is_file() else []
    frames = [line.rpartition("/")[2] for line in lines if line.startswith("File ")]
    return f"{said} at {' < '.join(frames[:8])}", frames[0] if frames else said


def fuzz(numbers: list[int], seed: int, processes: int, every: int) -> list[Outcome]:
    """Make the originals, and try damaged ones."""
    with tempfile.TemporaryDirectory(prefix="pepper-fuzz-") as scratch:
        folder = Path(scratch)
        make_originals(folder / "originals")
        (folder / "homes").mkdir()
        return Laboratory(folder / "originals", folder / "homes", seed, processes, every).try_all(numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of single inputs, to see what came of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--every", type=int, default=50, help="every which input also goes through the command line")
    options = parser.parse_args()
    began = time.monotonic()
    numbers = options.only if options.only is not None else list(range(options.inputs))
    outcomes = fuzz(numbers, options.seed, options.processes, options.every)
    faults = [outcome for outcome in outcomes if outcome.kind in FAULTS]
    seen: Counter[tuple[str, str]] = Counter()
    for outcome in sorted(faults, key=lambda outcome: outcome.number):
        seen[outcome.door, outcome.where] += 1
        if seen[outcome.door, outcome.where] <= 3:
            print(
                f"input {outcome.number}, {outcome.door} ({outcome.how}): {outcome.kind}: {outcome.detail}", flush=True
            )
    if options.only is not None:
        for outcome in outcomes:
            print(outcome)
    rows = []
    for name in [*(door.name for door in DOORS), ""]:
        of = [outcome for outcome in outcomes if outcome.door == name]
        if of:
            kinds = Counter(outcome.kind for outcome in of)
            rows.append([name or "(unknown)", f"{len(of)}", f"{kinds['taken']}", f"{kinds['refused']}"])
            rows[-1] += [f"{kinds[kind]}" for kind in FAULTS]
    total = Counter(outcome.kind for outcome in outcomes)
    rows.append(
        ["all", f"{len(outcomes)}", f"{total['taken']}", f"{total['refused']}", *(f"{total[k]}" for k in FAULTS)]
    )
    print_table(
        f"seed {options.seed}, {sum(o.command for o in outcomes)} of the inputs through the command line, too,"
        f" {time.monotonic() - began:.0f} s",
        ["what came in", "inputs", "taken", "refused", *FAULTS],
        rows,
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
