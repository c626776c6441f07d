"""What does the harness cost? Time of a sweep beyond warm-up and timing, and of planning 1,000 cells.

Reference for planning: Hydra's own multirun over the same axes, timed on a few jobs of an empty task.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import print_table

EMPTY_TASK = """
import hydra
from pepper import config
config.register()
@hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name="run")
def main(cfg):
    pass
main()
"""

PLAN = """
import sys, time
from functools import partial
import numpy as np
from hydra import initialize_config_dir
from pepper import config
from pepper.config.composing import Composition, recompose
from pepper.measure.profile import Profile
from pepper.sweep.axes import plan
from pepper.tracking.outbox import Outbox
from pepper.tracking.posting import flush
from pepper.tracking.history import history
from pepper.tracking.profiles import record_profile, write_artifacts
from pepper.tracking.store import Store

overrides = [
    "+sweep=loads",
    "sweep.axes.model=[alexnet,densenet121,googlenet,inception_v2,resnet50]",
    "sweep.axes.device=[local,share100,share50,share25]",
    "sweep.axes.load=[idle,cpu25,cpu50,cpu75,cpu90]",
    "+sweep.axes.measure=[quick,thorough]",
    "sweep.axes.'measure.seed'=[0,1,2,3,4]",
]
config.register()
with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
    cfg = config.typed(recompose(overrides))
    start = time.perf_counter()
    cells = plan(Composition(cfg, tuple(overrides), recompose))
    planned = time.perf_counter()
store = Store(cfg.tracking)
opened = time.perf_counter()
if sys.argv[1] == "fill":
    for cell in cells:
        figures = ["latency_p50_ms", "latency_p50_low_ms", "latency_p50_high_ms", "throughput_per_s", "samples"]
        metrics = dict.fromkeys([*figures, *(f"figure_{i}" for i in range(30))], 1.0)
        samples = {name: np.ones(3) for name in ("start_ns", "latency_ns")}
        profile = Profile("FINISHED", time.time(), time.time(), "VALID", metrics=metrics, samples=samples)
        record = record_profile(cell.name, cell.identity, cell.params(), profile)
        Outbox(store.folder).add(record, fill=partial(write_artifacts, profile, ""))
    before = time.perf_counter()
    flush(store)
    print("flush", len(cells), time.perf_counter() - before)
else:
    known = set(history(store)["cell"])
    left = [cell for cell in cells if cell.identity not in known]
    print("check", len(cells), planned - start, opened - planned, time.perf_counter() - opened, len(left))
"""


def command(*arguments: str, folder: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder of its own and return what it printed."""
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def sweep_overhead(overrides: list[str]) -> list[str]:
    """Run a sweep and return the cells, their timed seconds, and what the rest of its wall time cost."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        # Devices are calibrated once per machine; that is not a sweep's cost.
        command("-m", "pepper.run", *overrides, "sweep.axes.load=[idle]", "measure=quick", folder=folder)
        start = time.perf_counter()
        command("-m", "pepper.run", *overrides, "sweep.rerun=all", folder=folder)
        whole_s = time.perf_counter() - start
        client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
        [experiment] = client.search_experiments(filter_string="name = 'pepper/profiles'")
        sweeps = "tags.`pepper.kind` = 'sweep'"
        [parent] = client.search_runs([experiment.experiment_id], sweeps, order_by=["start_time DESC"], max_results=1)
        measured = client.search_runs(
            [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=50_000
        )
    # What is measured again is timed as well: what the harness adds to that counts, for each cell of the sweep.
    figures = [run.data.metrics for run in measured if "timed_s" in run.data.metrics]
    timed_s = sum(each["timed_s"] + each["warmup_s"] for each in figures)
    wall_s = parent.data.metrics["wall_s"]
    cells = int(parent.data.params["cells"])
    again = len(figures) - cells
    return [
        f"{cells} + {again}",
        f"{timed_s:.1f}",
        f"{wall_s:.1f}",
        f"{(wall_s - timed_s) / cells:.3f}",
        f"{whole_s - wall_s:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sweep", nargs="+", default=["+sweep=loads"], help="overrides of the sweep that is run")
    parser.add_argument("--hydra-jobs", type=int, default=20, help="jobs of Hydra's multirun to time")
    options = parser.parse_args()
    print_table(
        f"a sweep beyond warm-up and timing ({' '.join(options.sweep)})",
        ["cells + again", "warm-up and timing s", "all cells s", "overhead s a cell", "start and end s, once"],
        [sweep_overhead(options.sweep)],
    )
    with tempfile.TemporaryDirectory() as folder:
        fill_s = float(command("-c", PLAN, "fill", folder=folder).stdout.split()[-1])
        first = command("-c", PLAN, "check", folder=folder).stdout.split()[-6:]
        again = command("-c", PLAN, "check", folder=folder).stdout.split()[-6:]
        Path(folder, "empty.py").write_text(EMPTY_TASK)
        start = time.perf_counter()
        command("empty.py", "load=idle", folder=folder)
        one_s = time.perf_counter() - start
        start = time.perf_counter()
        seeds = ",".join(map(str, range(options.hydra_jobs)))
        command("empty.py", "-m", f"measure.seed={seeds}", folder=folder)
        hydra_s = (time.perf_counter() - start - one_s) / (options.hydra_jobs - 1)
    cells = int(first[1])
    rows = [
        [
            label,
            f"{float(line[2]):.2f}",
            f"{float(line[4]):.2f}",
            f"{float(line[2]) + float(line[4]):.2f}",
            f"{(float(line[2]) + float(line[4])) / (hydra_s * cells):.3f}",
        ]
        for label, line in (("first resume", first), ("later", again))
    ]
    print_table(
        f"\nplanning and resume check of {cells} cells; Hydra's multirun takes {hydra_s:.3f} s a job,"
        f" {hydra_s * cells:.0f} s for as many (empty task)",
        ["", "plan s", "resume check s", "together s", "ratio to Hydra"],
        rows,
    )
    print(f"\nlogging takes {1000 * fill_s / cells:.0f} ms a cell; opening the store {float(again[3]):.1f} s once")


if __name__ == "__main__":
    main()
