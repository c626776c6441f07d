"""Is anything lost, measured twice, left behind or touched, whatever is done to a sweep?

Each trial runs a sweep of four short cells in a folder of its own and does something to it at a random moment: signals,
a full disk, a store that is locked, moved, corrupt or away, a second sweep beside it, bad records, closed streams, odd
names and clocks. Then what was broken is whole again, and the same command runs to its end. Then each cell must be
finished exactly once, and nothing be left: no process, no file in the temporary folder, nothing that waits, no run
that is said to be under way, and nothing changed outside of the trial's folder. A trial that fails says its seed.

    python -m benchmarks.rough_handling --faults 300 --seed 0

Faults that need mounts and nodes need root; all of them are made on folders, file systems and nodes of the trial's own.
"""

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.common import print_table
from benchmarks.rough.desk import Desk, Ended, Rig, adopt, left_running
from benchmarks.rough.faults import FAULTS, SwallowedError

IMPORTED = (
    "matplotlib.pyplot",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandas",
    "pepper.report.figures",
    "pepper.tasks.profile",
    "plotly.graph_objects",
    "pyarrow.parquet",
)
ROOT_ONLY = {"disk full", "temporary folder full", "mlruns read-only", "stderr closed, full"}


@dataclass
class Outcome:
    """What a trial came to.

    Attributes:
        kind: What was done.
        lost: Cells that were measured, and are not in the store or were measured again.
        doubled: Cells that are in the store more than once.
        processes: What still runs.
        files: What is in the temporary folder, or waits.
        running: Runs that are said to be under way.
        swallowed: Signals that did not end the sweep.
        outside: What was changed outside of the trial's folder.
        other: What else was wrong.
        seconds: How long it took.
    """

    kind: str
    lost: int = 0
    doubled: int = 0
    processes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    running: int = 0
    swallowed: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def broken(self) -> dict[str, object]:
        """All that is not as it should be, by name."""
        return {name: value for name, value in vars(self).items() if name not in ("kind", "seconds") and value}


def trial(rig: Rig, kind: str, seed: int) -> Outcome:
    """Do one thing to a sweep, run it again, and look at what is left."""
    outcome, began = Outcome(kind), time.monotonic()
    desk = Desk(rig, rig.root / f"trial-{seed}")
    ended = []
    try:
        ended = FAULTS[kind](desk, Random(seed))
    except SwallowedError as error:
        outcome.swallowed.append(str(error))
    except (RuntimeError, OSError) as error:
        outcome.other.append(f"{type(error).__name__}: {error}")
    for each in ended:
        import_what_is_kept(desk, each)
    outcome.processes = left_running()
    outcome.files = [str(path) for path in desk.temporary.iterdir()]
    again = desk.start().end()
    if again.status != 0:
        outcome.other.append(f"again: exit status {again.status}: {again.said[-300:]}")
    for each in (*ended, again):
        if "Traceback" in each.said or "Exception ignored" in each.said:
            outcome.other.append(f"traceback: {each.said[-1500:]}")
    outcome.processes += left_running()
    state = desk.folder / "state" / "pepper"  # what was kept there is logged from there
    outcome.files += [str(path) for folder in (desk.temporary, state) for path in folder.glob("*")] + desk.waiting()
    finished, outcome.running = desk.runs()
    measured_before = set().union(*(each.measured for each in ended))
    outcome.lost = max(desk.cells - len(finished), len(measured_before & again.measured))
    outcome.doubled = sum(count - 1 for count in finished.values())
    seen = rig.look()
    outcome.outside = [name for name in {**rig.untouched, **seen} if rig.untouched.get(name) != seen.get(name)]
    outcome.seconds = time.monotonic() - began
    shutil.rmtree(desk.folder)
    return outcome


def import_what_is_kept(desk: Desk, ended: Ended) -> None:
    """Do as pepper says where it has kept a result elsewhere."""
    mark = "task=import tracking.folder="
    if mark in ended.said:
        folder = ended.said.split(mark, 1)[1].split()[0].rstrip(";,.)")
        done = desk.start("task=import", f"tracking.folder={folder}").end()
        if done.status != 0:
            raise RuntimeError(f"the import that was advised ends with status {done.status}: {done.said[-300:]}")
        shutil.rmtree(folder)


def kinds(number: int, seed: int, only: Sequence[str]) -> list[str]:
    """Return what is done in each trial: every kind about as often, in random order."""
    known = [kind for kind in only or FAULTS if os.geteuid() == 0 or kind not in ROOT_ONLY]
    rounds = [known] * (number // len(known) + 1)
    rng = Random(seed)
    return [kind for each in rounds for kind in rng.sample(each, len(each))][:number]


def run(number: int, seed: int, only: Sequence[str] = ()) -> list[Outcome]:
    """Run trials one after the other, say what is wrong, and return what came of them."""
    for module in IMPORTED:  # once: trials are copies of this process
        importlib.import_module(module)
    adopt()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        for index, kind in enumerate(kinds(number, seed, only)):
            outcomes.append(trial(rig, kind, seed + index))
            said = "; ".join(f"{name}: {value}" for name, value in outcomes[-1].broken.items()) or "whole"
            print(f"{index + 1}/{number} seed {seed + index} {kind}, {outcomes[-1].seconds:.1f} s: {said}", flush=True)
        print(f"an undisturbed sweep took {rig.seconds:.1f} s")
    return outcomes


def main() -> None:
    """Run trials; the exit status is 1 if something was lost, doubled, left behind or touched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300, help="how many trials (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first; the next one's is higher by 1")
    parser.add_argument("--only", nargs="*", default=(), choices=list(FAULTS), metavar="KIND", help="only these kinds")
    options = parser.parse_args()
    outcomes = run(options.faults, options.seed, options.only)
    rows = []
    for kind in dict.fromkeys(FAULTS):
        hit = [outcome for outcome in outcomes if outcome.kind == kind]
        if hit:
            rows.append([kind, *_counts(hit)])
    rows.append(["together", *_counts(outcomes)])
    print_table(
        f"{len(outcomes)} faults from seed {options.seed}",
        ["fault", "faults", "lost", "doubled", "processes", "files", "runs", "signals", "outside", "else", "longest s"],
        rows,
    )
    sys.exit(1 if any(outcome.broken for outcome in outcomes) else 0)


def _counts(outcomes: Sequence[Outcome]) -> list[str]:
    counts = [
        len(outcomes),
        sum(o.lost for o in outcomes),
        sum(o.doubled for o in outcomes),
        sum(len(o.processes) for o in outcomes),
        sum(len(o.files) for o in outcomes),
        sum(o.running for o in outcomes),
        sum(len(o.swallowed) for o in outcomes),
        sum(len(o.outside) for o in outcomes),
        sum(len(o.other) for o in outcomes),
    ]
    return [*map(str, counts), f"{max(o.seconds for o in outcomes):.0f}"]


if __name__ == "__main__":
    main()
