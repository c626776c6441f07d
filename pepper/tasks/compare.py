"""``task=compare``: is the candidate slower than the baseline? Its exit status is made for CI."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pepper.config import CompareConfig, PepperConfig
from pepper.devices.host import machine_hash
from pepper.errors import ConfigError
from pepper.measure.comparison import Ratio, geometric_mean, median_ratio
from pepper.report.tables import comparisons_table, show
from pepper.tracking.profiles import LoggedProfile, logged_profiles
from pepper.tracking.store import Store

STATUS_SLOWER = 3

# What makes two cells comparable where the model's file is another one.
_SAME = ("model", "device", "load", "threads", "share", "throttle", "provider", "optimization", "spinning", "parallel")


@dataclass(frozen=True)
class _Compared:
    baseline: LoggedProfile
    candidate: LoggedProfile
    ratio: Ratio


def compare(config: PepperConfig) -> int:
    """Compare two profiles, or two sweeps cell by cell.

    Returns:
        The exit status: 0, or 3 if a cell is slower by more than the threshold, beyond doubt.

    Raises:
        ConfigError: A run is not given, or the two cannot be compared.
        TrackingError: There is no such run.
    """
    options = config.compare
    store = Store(config.tracking)
    baseline, candidate = (
        _trusted(logged_profiles(store, _given(options, key)), key, options.force) for key in ("baseline", "candidate")
    )
    pairs = _pairs(baseline, candidate)
    if not options.force:
        for pair in pairs:
            _check_alike(*pair)
    compared = [_Compared(old, new, median_ratio(old.latency_ms, new.latency_ms)) for old, new in pairs]
    return _say(compared, options)


def _given(options: CompareConfig, key: str) -> str:
    run_id: str | None = getattr(options, key)
    if not run_id:
        raise ConfigError(f"compare.{key}: has no value; give compare.{key}=RUN, a run's identifier in MLflow")
    return run_id


def _trusted(profiles: Sequence[LoggedProfile], key: str, force: bool) -> list[LoggedProfile]:
    """Leave INVALID profiles out, unless forced; say so."""
    kept = [profile for profile in profiles if force or profile.verdict == "VALID"]
    for profile in profiles:
        if profile not in kept and kept:
            print(f"left out of the {key}: {profile.name} is INVALID: {profile.reasons}", file=sys.stderr)
    if not kept:
        raise ConfigError(
            f"compare.{key}: {profiles[0].name} is INVALID ({profiles[0].reasons});"
            " measure it again, or set compare.force=true"
        )
    return kept


def _pairs(
    baseline: Sequence[LoggedProfile], candidate: Sequence[LoggedProfile]
) -> list[tuple[LoggedProfile, LoggedProfile]]:
    """Match the cells: two single ones as they are, others by identity, else by model, device, load and session."""
    if len(baseline) == len(candidate) == 1:
        return [(baseline[0], candidate[0])]

    def key(profile: LoggedProfile) -> tuple[str | None, ...]:
        return tuple(profile.params.get(name) for name in _SAME)

    by_cell = {profile.cell: profile for profile in baseline}
    by_key = {key(profile): profile for profile in baseline}
    matches = [(by_cell.get(new.cell) or by_key.get(key(new)), new) for new in candidate]
    pairs = [(old, new) for old, new in matches if old is not None]
    if not pairs:
        raise ConfigError(
            "compare.candidate: shares no cell with the baseline; name runs of the same models and devices"
        )
    alone = len(candidate) + len(baseline) - 2 * len(pairs)
    if alone:
        print(f"{alone} cells are in one of the two only: left out", file=sys.stderr)
    return pairs


def _check_alike(old: LoggedProfile, new: LoggedProfile) -> None:
    remedy = "measure both alike, or set compare.force=true"
    if machine_hash(old.host) != machine_hash(new.host):
        machines = [f"{each.host['cpu_model']}, {each.host['cores']} cores" for each in (old, new)]
        raise ConfigError(
            f"compare.candidate: {new.name} ran on another machine ({machines[1]}; not {machines[0]}); {remedy}"
        )
    if old.onnxruntime != new.onnxruntime:
        raise ConfigError(
            f"compare.candidate: {new.name} ran on onnxruntime {new.onnxruntime}, not {old.onnxruntime}; {remedy}"
        )


def _say(compared: Sequence[_Compared], options: CompareConfig) -> int:
    together = 1 - (1 - options.confidence) / len(compared)  # Bonferroni: all intervals hold at once
    rows = [_row(each, together, 1 + options.threshold_percent / 100) for each in compared]
    show(comparisons_table(rows, options.confidence), comparisons=rows)
    overall = geometric_mean([each.ratio for each in compared])
    low, high = (_change(ratio) for ratio in overall.interval(options.confidence))
    slower = [row["name"] for row in rows if row["verdict"] == "slower"]
    outcome = f"slower beyond {options.threshold_percent:g} %: {', '.join(slower)}" if slower else "not slower"
    show(
        f"{outcome}; {len(rows)} compared, {_change(overall.value):+.1f} % in the mean ({low:+.1f} to {high:+.1f})",
        change_percent=_change(overall.value),
        low_percent=low,
        high_percent=high,
        slower=slower,
    )
    return STATUS_SLOWER if slower else 0


def _row(compared: _Compared, confidence: float, limit: float) -> dict[str, Any]:
    low, high = compared.ratio.interval(confidence)
    old, new = compared.baseline, compared.candidate
    return {
        "name": new.name if new.name == old.name else f"{old.name} -> {new.name}",
        "baseline_ms": float(np.median(old.latency_ms)),
        "candidate_ms": float(np.median(new.latency_ms)),
        "change_percent": _change(compared.ratio.value),
        "low_percent": _change(low),
        "high_percent": _change(high),
        "verdict": "slower" if low > limit else "faster" if high < 1 else "not slower",
        "baseline_run": old.run_id,
        "candidate_run": new.run_id,
    }


def _change(ratio: float) -> float:
    return 100 * (ratio - 1)
