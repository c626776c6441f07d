"""How long does it take to make the dataset from a store of many runs, the first time and later?

Fills a store with synthetic finished cells: one of each of eight real models is logged as pepper logs it, the
others are copies of these rows in the database with latencies of their own. Then the dataset is made as task=train
makes it. Aim: 3 s for 10,000 runs after the first time.
"""

import argparse
import contextlib
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterator
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import composed, print_table
from pepper.devices.cores import resolve
from pepper.graph.model import find_model
from pepper.latency.collect import Collected, collect, write
from pepper.measure.profile import Profile
from pepper.sweep.cells import Cell
from pepper.tracking.history import history
from pepper.tracking.profiles import record_profile
from pepper.tracking.record import Record
from pepper.tracking.runs import LOGGED_METRIC
from pepper.tracking.store import Store
from pepper.tracking.writer import write as log

MODELS = ("alexnet", "densenet121", "googlenet", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19")
TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")
AIM_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="how many finished runs the store holds")
    parser.add_argument("--new", type=int, default=100, help="how many are logged between two builds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tracking = composed(
            f"tracking.uri=sqlite:///{folder}/mlflow.db",
            f"tracking.folder={folder}",
            f"tracking.artifacts={folder}/artifacts",
        ).tracking
        store = Store(tracking)
        templates = [log(store, record).run_id for record in _records()]
        clock = count(time.time() - options.runs)  # a run was logged every second
        _copy(folder / "mlflow.db", templates, options.runs - len(templates), clock)
        lines = []
        for title in ("the first time", "again", f"{options.new} runs later", "again"):
            if "later" in title:
                _copy(folder / "mlflow.db", templates, options.new, clock)
            started = time.perf_counter()
            table = history(store)
            read = time.perf_counter()
            made = collect(table, folder / "cache")
            collected = time.perf_counter()
            write(made.rows, folder / "rows.parquet")
            ended = time.perf_counter()
            _check(made, len(table))
            figures = (read - started, collected - read, ended - collected, ended - started)
            lines.append([title, f"{len(table):,}", *(f"{s:.2f}" for s in figures), f"{figures[-1] / AIM_S:.2f}"])
    print_table(
        "seconds to make the dataset",
        ["build", "runs", "reading runs", "making rows", "writing", "together", "over the aim"],
        lines,
    )


def _records() -> Iterator[Record]:
    """A finished cell of each real model, with the metrics that a real one has."""
    rng = np.random.default_rng(0)
    for model in MODELS:
        config = composed(f"model={model}", "device=share50", "load=cpu50")
        cell = Cell(config.model, find_model(config.model), resolve(config.device), config.load, config.measure)
        metrics = {f"latency_{key}_ms": float(rng.uniform(1, 100)) for key in ("p50", "p90", "p95", "mean", "stdev")}
        metrics |= {f"figure_{number}": float(rng.random()) for number in range(25)}
        metrics |= {"latency_p50_low_ms": 1.0, "latency_p50_high_ms": 2.0, "throughput_per_s": 1.0, "samples": 100.0}
        facts = {"device_gflops": 100.0, "device_gflops_single": 100.0, "device_memory_gbps": 20.0, "device_share": 0.5}
        profile = Profile("FINISHED", time.time() - 1, time.time(), "VALID", metrics=metrics)
        yield record_profile(cell.name, cell.identity, {**cell.params(), **facts}, profile)


def _copy(database: Path, templates: list[str], number: int, clock: Iterator[float]) -> None:
    """Copy logged runs by turns, each with an identifier, a time and latencies of its own."""
    rng = np.random.default_rng()
    by_turns = islice(cycle(templates), number)
    copies = [(uuid.uuid4().hex, template, rng.uniform(0.5, 2), next(clock)) for template in by_turns]
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for table in TABLES:
            cursor = connection.execute(f"SELECT * FROM {table}")
            columns = [str(column[0]) for column in cursor.description]
            originals: dict[str, list[dict[str, Any]]] = {}
            for row in cursor:
                line = dict(zip(columns, row, strict=True))
                originals.setdefault(line["run_uuid"], []).append(line)
            connection.executemany(
                f"INSERT INTO {table} VALUES ({','.join('?' * len(columns))})",
                (
                    list({**line, "run_uuid": run, **_own(table, line, factor, logged_s)}.values())
                    for run, template, factor, logged_s in copies
                    for line in originals[template]
                ),
            )


def _own(table: str, line: dict[str, Any], factor: float, logged_s: float) -> dict[str, Any]:
    """What a copied line has of its own."""
    if table not in ("metrics", "latest_metrics"):
        return {}
    if line["key"] == LOGGED_METRIC:
        return {"value": logged_s}
    return {"value": line["value"] * factor} if line["key"].startswith("latency") else {}


def _check(made: Collected, runs: int) -> None:
    if len(made.rows) != runs or made.left_out:
        raise SystemExit(f"{len(made.rows)} rows of {runs} runs; left out: {made.left_out}")


if __name__ == "__main__":
    main()
