"""How well does the latency model learn a new device from a few measurements?

Reads every VALID cell of a tracking store. Each device in turn is new: the model is trained on the others, a few
measurements of the new one are chosen as task=adapt chooses them, and the other measurements there are the test.
Calibration tells emulated devices well, so each is also tried with a calibration that overstates its arithmetic
speed, as that of another kind of processor may. References: the model before, and measurements chosen at random
(mean of several draws).
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.common import composed, print_table
from pepper.latency.adaptation import Adaptation, choose
from pepper.latency.collect import collect
from pepper.latency.dataset import Rows
from pepper.latency.evaluation import scores
from pepper.latency.features import COLUMN
from pepper.latency.model import LatencyModel
from pepper.tracking.history import history
from pepper.tracking.store import Store

_SPEED = [COLUMN[name] for name in ("device_gflops", "device_gflops_single")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("mlruns"), help="the store's folder")
    parser.add_argument("--measurements", type=int, nargs="+", default=[5, 10, 20], help="how many are chosen")
    parser.add_argument(
        "--overstated", type=float, nargs="+", default=[1.0, 1.5], help="arithmetic speed, times the true"
    )
    parser.add_argument("--draws", type=int, default=20, help="random choices")
    options = parser.parse_args()
    folder = options.folder.absolute()
    store = Store(composed(f"tracking.uri=sqlite:///{folder}/mlflow.db", f"tracking.folder={folder}").tracking)
    rows = collect(history(store), folder / "cache").rows
    lines = []
    for device, overstated in itertools.product(np.unique(rows.device), options.overstated):
        known, there = rows.take(rows.device != device), rows.take(rows.device == device)
        there.features[:, _SPEED] *= overstated
        champion = LatencyModel.fit(known.features, known.p50_ms)
        for count in options.measurements:
            if count >= len(there):
                continue
            chosen = np.array(choose(there.features, there.part, champion.roofline, count))
            before, after = _errors(champion, there, chosen)
            draws = [np.random.default_rng(seed).permutation(len(there))[:count] for seed in range(options.draws)]
            random = np.mean([_errors(champion, there, draw)[1] for draw in draws], axis=0)
            figures = (f"{mean:.1%} ({median:.1%})" for mean, median in (before, after, random))
            title = f"{device}, speed x {overstated:g}, {count} of {len(there)}"
            lines.append([title, *figures, f"{after[0] / before[0]:.2f}"])
    print_table(
        "mean (median) error on the other measurements of a device that the model was trained without",
        ["device", "before", "after", "chosen at random", "after to before"],
        lines,
    )


def _errors(champion: LatencyModel, there: Rows, chosen: npt.NDArray[np.int64]) -> list[tuple[float, float]]:
    """Mean and median error before and after adapting to some of a device's rows, on its other rows."""
    measured = there.take(chosen)
    ratios = measured.p50_ms / champion.p50_ms(measured.features)
    adapted = champion.adapted(Adaptation.fit(measured.features, ratios, champion.roofline))
    rest = there.take(np.setdiff1d(np.arange(len(there)), chosen))
    results = [scores(rest.p50_ms, model.p50_ms(rest.features)) for model in (champion, adapted)]
    return [(result["mape"], result["median_error"]) for result in results]


if __name__ == "__main__":
    main()
