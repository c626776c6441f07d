"""How true is an emulated device? Slow-down against the share, and achieved against requested load.

Reference: the same model, worker and core without a throttle, measured in the same round.
"""

import argparse
from statistics import median

from benchmarks.common import composed, print_table
from pepper.config import LoadConfig
from pepper.devices.cores import resolve
from pepper.errors import PepperError
from pepper.graph.model import find_model
from pepper.measure.launcher import Bench
from pepper.measure.profile import Profile


def profile(model: str, share: float, method: str, period_ms: str, percents: list[float]) -> list[Profile]:
    """Measure a model on an emulated device under each load."""
    config = composed(
        f"model={model}",
        "device=share100",
        f"device.share={share}",
        f"device.throttle={method}",
        f"device.period_ms={period_ms}",
    )
    with Bench(find_model(config.model), resolve(config.device), config.measure, "pepper") as bench:
        return [bench.profile(LoadConfig(name=f"cpu{percent:g}", percent=percent)) for percent in percents]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["squeezenet", "googlenet", "resnet50"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.5, 0.75])
    parser.add_argument("--methods", nargs="+", default=["suspend", "cgroup"])
    parser.add_argument("--loads", nargs="+", type=float, default=[25, 50, 75, 90], help="percent, first model only")
    parser.add_argument("--period-ms", default="null", help="mean run-and-wait cycle; null: the method's default")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    slow_downs: dict[tuple[str, str, float], list[tuple[float, float]]] = {}
    loads: dict[tuple[str, float, float], list[float]] = {}
    missing: dict[str, str] = {}
    for number in range(options.rounds):
        for model in options.models:
            free = profile(model, 1.0, "auto", options.period_ms, [0.0])[0].metrics
            for method in options.methods:
                for share in options.shares:
                    percents = [0.0, *(options.loads if model == options.models[0] and number == 0 else [])]
                    try:
                        profiles = profile(model, share, method, options.period_ms, percents)
                    except PepperError as error:
                        missing[method] = str(error)
                        continue
                    throttled = profiles[0].metrics
                    slow_downs.setdefault((model, method, share), []).append(
                        (
                            throttled["latency_p50_ms"] / free["latency_p50_ms"],
                            throttled["latency_mean_ms"] / free["latency_mean_ms"],
                        )
                    )
                    for percent, loaded in zip(percents[1:], profiles[1:], strict=True):
                        loads.setdefault((method, share, percent), []).append(loaded.metrics["load_alone_percent"])
    print_table(
        f"slow-down against an unthrottled core, median of {options.rounds} rounds; error = slow-down x share - 1",
        ["model", "method", "share", "wanted", "by median", "error", "by mean", "error"],
        [
            [
                model,
                method,
                f"{share:g}",
                f"{1 / share:.2f}",
                f"{(p50 := median(pair[0] for pair in pairs)):.2f}",
                f"{p50 * share - 1:+.1%}",
                f"{(mean := median(pair[1] for pair in pairs)):.2f}",
                f"{mean * share - 1:+.1%}",
            ]
            for (model, method, share), pairs in slow_downs.items()
        ],
    )
    print_table(
        f"\nload alone on the device ({options.models[0]}), one verification each",
        ["method", "share", "requested %", "achieved %", "points off"],
        [
            [method, f"{share:g}", f"{percent:g}", f"{achieved[0]:.1f}", f"{achieved[0] - percent:+.1f}"]
            for (method, share, percent), achieved in loads.items()
        ],
    )
    for method, reason in missing.items():
        print(f"{method}: not available here: {reason}")


if __name__ == "__main__":
    main()
