"""Do 10,000 runs stay quick: the check of what a sweep has finished before, and the comparison of two sweeps?

A small sweep is measured and logged by pepper itself. Its runs are then copied in the database and the artifacts'
folder, each as another cell, until there are as many as asked for. Each figure comes from a process of its own. Times
leave out imports and opening the store; memory has them in it.
"""

import argparse
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from contextlib import closing
from pathlib import Path

from benchmarks.common import print_table

SWEEPS = 10  # that the cells belong to
MEASURED = (
    "+sweep=models",
    "sweep.axes.model=[squeezenet,shufflenet]",
    "+sweep.axes.measure.seed=[0,1]",
)
FIRST_S, LATER_S, RUNS_PER_S = 20.0, 2.0, 200.0
"""Aims: CPU seconds of the first resume check and of later ones, compared runs a second of CPU time."""
PARTS = ("runs", "tags", "params", "metrics", "latest_metrics")
"""Tables with a row or more for each run."""
CHANGED = {
    "run_uuid": "copies.run",
    "artifact_uri": "replace(artifact_uri, original, run)",
    "value": """CASE key WHEN 'pepper.cell' THEN cell WHEN 'pepper.record' THEN substr(cell, 33)
        WHEN 'mlflow.parentRunId' THEN parent WHEN 'pepper.verdict' THEN 'VALID'
        WHEN 'device' THEN 'device' || number ELSE value END""",
}
"""Columns of a copy that differ from the original's, in SQL."""

TIMED = """
import resource, sys, time
from benchmarks.common import composition
from pepper.tasks.compare import compare
from pepper.tracking.history import STANDING, finished_cells, history
from pepper.tracking.store import Store
import mlflow, pandas, pyarrow.parquet, scipy.stats

asked = composition(*sys.argv[1:])
store = Store(asked.config.tracking)
cpu_s, wall_s = time.process_time(), time.perf_counter()
if asked.config.compare.baseline:
    count = compare(asked).status
else:
    table = history(store)
    count = len(finished_cells(table, STANDING["none"], set(table["cell"])))
cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
print(count, cpu_s, wall_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="cells in the store")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python(Path(folder), "-m", "pepper.run", *MEASURED)
        baseline, candidate, *_ = copy_runs(Path(folder), options.runs)
        rows = []
        for check, aim_s in (("first resume check", FIRST_S), ("later resume check", LATER_S)):
            finished, cpu_s, wall_s, memory_mib = timed(folder)
            assert finished >= options.runs, f"{finished:.0f} of {options.runs} cells are seen"
            rows.append([check, f"{cpu_s:.2f}", f"{wall_s:.2f}", f"{memory_mib:.0f}", f"{cpu_s:.2f} s", f"{aim_s:g} s"])
        sides = (f"compare.baseline={baseline}", f"compare.candidate={candidate}")
        status, cpu_s, wall_s, memory_mib = timed(folder, *sides)
        assert status == 0, "copies are as quick as their originals"
        speed = 2 * (options.runs // SWEEPS) / cpu_s
        shown = [f"{cpu_s:.2f}", f"{wall_s:.2f}", f"{memory_mib:.0f}", f"{speed:.0f} runs/s"]
        rows.append(["compare two sweeps", *shown, f"{RUNS_PER_S:g} runs/s"])
    print_table(
        f"{options.runs:,} cells in SQLite, {SWEEPS} sweeps",
        ["", "CPU s", "wall s", "peak MiB", "by CPU", "aim"],
        rows,
    )


def timed(folder: str, *overrides: str) -> tuple[float, float, float, float]:
    """Do it in a fresh process; return its count, its seconds of CPU and of wall time, and its peak memory in MiB."""
    count, cpu_s, wall_s, memory_mib = map(float, python(Path(folder), "-c", TIMED, *overrides).split()[-4:])
    return count, cpu_s, wall_s, memory_mib


def python(folder: Path, *arguments: str) -> str:
    """Run Python in a folder and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def copy_runs(folder: Path, count: int) -> list[str]:
    """Copy the sweep of a store until there are that many more cells; return the copied sweeps."""
    tracked = folder / "mlruns"
    with closing(sqlite3.connect(tracked / "mlflow.db")) as database, database:
        kinds = "SELECT run_uuid FROM tags WHERE key = 'pepper.kind' AND value = ?"
        cells = [run for (run,) in database.execute(kinds, ["cell"])]
        [(sweep,)] = database.execute(kinds, ["sweep"])
        parents = [uuid.uuid4().hex for _ in range(SWEEPS)]
        copies: list[tuple[object, ...]] = [(sweep, parent, None, None, None) for parent in parents]
        for index in range(count):
            number, parent = divmod(index, SWEEPS)
            run = uuid.uuid4().hex
            cell = hashlib.sha256(run.encode()).hexdigest()
            copies.append((cells[number % len(cells)], run, parents[parent], cell, number))
        database.execute("CREATE TEMP TABLE copies (original, run, parent, cell, number)")
        database.executemany("INSERT INTO copies VALUES (?, ?, ?, ?, ?)", copies)
        for table in PARTS:
            names = [column for _, column, *_ in database.execute(f"PRAGMA table_info({table})")]
            made = ", ".join(changed(table, name) for name in names)
            database.execute(f"INSERT INTO {table} SELECT {made} FROM {table} JOIN copies ON run_uuid = original")
    artifacts = tracked / "artifacts"
    for source, target, *_ in copies:
        shutil.copytree(artifacts / str(source), artifacts / str(target), copy_function=os.link)
    return parents


def changed(table: str, column: str) -> str:
    """Return what a copy has in a column, in SQL."""
    return column if column == "value" and "metrics" in table else CHANGED.get(column, column)


if __name__ == "__main__":
    main()
