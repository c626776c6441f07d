"""How well is another machine predicted, by its calibration alone and after ten of its cells?

The rows are cells that pepper measured on that machine, with its devices' calibration in their columns. The champion is
trained on other machines' cells alone: those of a tracking store, and of further such files. Each device of the rows is
asked about by its calibration; then ten of its idle cells are chosen as task=adapt chooses them, and the others are the
test. References on the same rows: the device's median ratio to its calibrated estimate, no champion at all; and the ten
latencies without the calibration (`pepper.latency.unseen`).
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.common import composed, print_table
from pepper.config import ModelConfig
from pepper.errors import LatencyError, ModelError
from pepper.graph import characteristics
from pepper.graph.model import find_model
from pepper.latency.adaptation import Adaptation, choose
from pepper.latency.collect import collect
from pepper.latency.conformal import interval, leave_out
from pepper.latency.dataset import Rows
from pepper.latency.description import describe_model
from pepper.latency.evaluation import repeats, scores
from pepper.latency.features import COLUMN, Setting, Values, rows
from pepper.latency.model import LatencyModel
from pepper.latency.roofline import TERMS, Roofline
from pepper.latency.unseen import Kin, UnseenDevice
from pepper.measure.noise import floor_of
from pepper.planning.absent import behaviours
from pepper.tracking.history import history
from pepper.tracking.store import Store


def read(file: Path, facts: Mapping[str, float]) -> Rows:
    """Read the VALID cells of a file whose models can be found and are those that were measured."""
    table = pd.read_csv(file)
    table = table[table["verdict"] == "VALID"].reset_index(drop=True)
    described: dict[str, Values] = {}
    for path, sha256 in table[["model_path", "model_sha256"]].drop_duplicates().itertuples(index=False):
        try:
            model = find_model(ModelConfig(path=path))
            if model.content_hash != sha256:
                raise ModelError("it is another model now")
            described[path] = describe_model(model)
        except ModelError as error:
            print(f"{path}: left out: {error}")
    table = table[table["model_path"].isin(list(described))].reset_index(drop=True)
    features = [rows(described[line["model_path"]][None], _setting(line, facts)) for line in table.to_dict("records")]
    return Rows(
        features=np.concatenate(features),
        p50_ms=table["latency_p50_ms"].to_numpy(float),
        p95_ms=table["latency_p95_ms"].to_numpy(float),
        model=table["model"].to_numpy(str),
        part=table["model_sha256"].to_numpy(str),
        device=table["device"].to_numpy(str),
        load=table["load"].to_numpy(str),
        group=table["model_sha256"].str[:24].to_numpy(str),
    )


def _setting(line: Mapping[Any, Any], facts: Mapping[str, float]) -> Setting:
    load = str(line["load"])
    percent = 0.0 if load == "idle" else float(load.removeprefix("cpu"))
    known = {str(name): value for name, value in line.items() if value == value}
    load_cores = known["device_cores"] if percent else 0
    return Setting.from_params({**known, "load_percent": percent, "load_cores": load_cores, **facts})


def calibrated_ms(there: Rows) -> Values:
    """What the calibration says, at the median ratio to what was measured."""
    estimate = Roofline(np.ones(len(TERMS))).latency_ms(there.features)
    return np.asarray(estimate * np.median(there.p50_ms / estimate))


def judge(champion: LatencyModel, known: Rows, there: Rows, count: int) -> list[list[str]]:
    """Errors on a device's cells, before and after some of its idle cells."""
    device = str(there.device[0])
    idle = there.features[:, COLUMN["load_percent"]] == 0
    free = np.flatnonzero(idle)
    chosen = free[choose(there.features[free], there.part[free], champion.roofline, count)]
    rest = np.setdiff1d(np.arange(len(there)), chosen)
    found = champion.predict(there.features)
    said: dict[str, tuple[npt.NDArray[np.int64], Values]] = {
        "calibration alone, no champion": (np.arange(len(there)), calibrated_ms(there)),
        "champion, by its calibration": (np.arange(len(there)), found.p50_ms),
    }
    inside = {"champion, by its calibration": (there.p50_ms >= found.low_ms) & (there.p50_ms <= found.high_ms)}
    ratios = there.p50_ms[chosen] / champion.p50_ms(there.features[chosen])
    try:
        adapted = champion.adapted(Adaptation.fit(there.features[chosen], ratios, champion.roofline))
        said["the same, of the cells that are left"] = rest, champion.p50_ms(there.features)
        said[f"champion, after {count} of its cells"] = rest, adapted.p50_ms(there.features)
    except LatencyError as error:
        print(f"{device}: {error}")
    plain = rows(there.features[:, : len(characteristics.FEATURES)], Setting())
    kin = Kin(behaviours(champion, known), plain)
    learned = UnseenDevice.fit([kin], [plain[chosen]], there.p50_ms[chosen])
    said[f"{count} latencies, not calibrated"] = np.intersect1d(rest, free), learned.predict([plain]).p50_ms
    lines = []
    for method, (asked, predicted) in said.items():
        for load, of in (("idle", idle), ("loaded", ~idle)):
            where = asked[of[asked]]
            if len(where):
                told = scores(there.p50_ms[where], predicted[where])
                errors = [f"{told[key]:.1%}" for key in ("median_error", "mape", "within_10", "within_20")]
                held = f"{inside[method][where].mean():.0%}" if method in inside else ""
                lines.append([device, method, f"{load}, {len(where)}", *errors, held])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="CSV of cells measured on the other machine")
    parser.add_argument("--folder", type=Path, default=Path("mlruns"), help="the store whose cells are learned from")
    parser.add_argument("--train", type=Path, nargs="*", default=[], help="further CSV files to learn from")
    parser.add_argument("--cells", type=int, default=10, help="cells of each device that it is adapted with")
    parser.add_argument(
        "--facts", nargs="*", default=[], help="facts of its devices, NAME=NUMBER, such as device_runtime_gflops=51000"
    )
    options = parser.parse_args()
    facts = {name: float(value) for name, _, value in (fact.partition("=") for fact in options.facts)}
    there = read(options.rows, facts)
    learned_from = [read(file, {}) for file in options.train]
    folder = options.folder.absolute()
    if (folder / "mlflow.db").is_file():
        store = Store(composed(f"tracking.uri=sqlite:///{folder}/mlflow.db", f"tracking.folder={folder}").tracking)
        learned_from.append(collect(history(store), folder / "cache").rows)
    if not learned_from:
        parser.error(f"--folder {options.folder}: holds no store, and --train names no file")
    known = Rows.join(*learned_from)
    champion = LatencyModel.fit(known.features, known.p50_ms)
    left_out = (leave_out(known, by, champion.hyperparameters) for by in ("model", "load"))
    champion = replace(champion, interval=interval(champion, *left_out))
    lines = [
        line
        for device in np.unique(there.device).tolist()
        for line in judge(champion, known, there.take(there.device == device), options.cells)
    ]
    noise = floor_of(repeats(there))
    print_table(
        f"{len(there)} VALID cells of {options.rows.name}, learned from {len(known)} of {len(np.unique(known.device))}"
        f" devices; noise: {noise or 'no cell is there twice'}",
        ["device", "method", "cells", "median error", "mean error", "in 10 %", "in 20 %", "in 90 % interval"],
        lines,
    )


if __name__ == "__main__":
    main()
