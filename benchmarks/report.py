"""How long a report takes, and how large it is, against the aims of 10 s and 5 MB for 1,000 cells."""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import print_table
from pepper.report import learning, measurements
from pepper.report.cells import tidy
from pepper.report.page import render

AIM_SECONDS, AIM_MB, AIM_CELLS = 10.0, 5.0, 1000
DEVICES = (("fast", 1.0), ("half", 0.5), ("quarter", 0.25), ("tiny", 0.1))
LOADS = (0, 25, 50, 75, 90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 1000, 3000], help="numbers of cells")
    parser.add_argument("--out", type=Path, help="where to keep the largest report")
    arguments = parser.parse_args()
    lines = []
    html = ""
    for cells in arguments.cells:
        runs = synthetic(cells)
        start = time.perf_counter()
        table = tidy(runs)
        sections = measurements.sections(table, [{"device": name, "system": "Linux"} for name, _ in DEVICES])
        sections.append(learning.section(_predictions(table)))
        html = render("Report", "synthetic cells", sections)
        seconds, megabytes = time.perf_counter() - start, len(html.encode()) / 1e6
        aims = [f"{seconds / AIM_SECONDS:.2f}", f"{megabytes / AIM_MB:.2f}"] if cells == AIM_CELLS else ["", ""]
        lines.append([f"{cells:,}", f"{seconds:.2f}", f"{megabytes:.2f}", *aims])
    print_table("report", ["cells", "seconds", "MB", "seconds over the aim", "MB over the aim"], lines)
    if arguments.out:
        arguments.out.write_text(html, encoding="utf-8")


def synthetic(cells: int) -> pd.DataFrame:
    """Return runs as the store's history gives them; one in twenty is INVALID, one in fifty FAILED."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(cells):
        rest, load = divmod(index, len(LOADS))
        model, device = divmod(rest, len(DEVICES))
        name, share = DEVICES[device]
        percent = LOADS[load]
        p50_ms = (1 + model % 50) / share * (1 + percent / 100) * rng.uniform(0.95, 1.05)
        failed, invalid = index % 50 == 7, index % 20 == 3
        figures = {
            "latency_p50_ms": p50_ms,
            "latency_p50_low_ms": 0.98 * p50_ms,
            "latency_p50_high_ms": 1.02 * p50_ms,
            "latency_p95_ms": 1.3 * p50_ms,
            "throughput_per_s": 1000 / p50_ms,
            "samples": 200.0,
            "load_alone_percent": percent + rng.normal(),
            "share_achieved": share,
        }
        rows.append(
            {
                "run_id": f"{index:032x}",
                "cell": f"{index:064x}",
                "status": "FAILED" if failed else "FINISHED",
                "verdict": None if failed else "INVALID" if invalid else "VALID",
                "reasons": "worker: crashed" if failed else "unstable: the latency drifted" if invalid else None,
                "ended_ms": 1.7e12 + 2000 * index,
                "onnxruntime": "1.32.0",
                "params.model": f"model{model}",
                "params.device": name,
                "params.load": f"cpu{percent}" if percent else "idle",
                "params.load_percent": str(percent),
                "params.threads": "1",
                "params.share": str(share),
                **{f"metrics.{key}": float("nan") if failed else value for key, value in figures.items()},
            }
        )
    return pd.DataFrame(rows)


def _predictions(table: pd.DataFrame) -> learning.LatencyModelReport:
    """Return predictions of every cell that has a median, 10 % off on average."""
    done = table[table["p50_ms"].notna()]
    off = np.exp(np.random.default_rng(1).normal(0, 0.12, len(done)))
    predictions = pd.DataFrame(
        {
            "model": done["model"],
            "device": done["device"],
            "load": done["load"],
            "p50_ms": done["p50_ms"],
            "predicted_without_model_ms": done["p50_ms"] * off,
        }
    )
    return learning.LatencyModelReport("pepper-latency", 1, True, predictions)


if __name__ == "__main__":
    main()
