"""``task=compare``: is the candidate slower than the baseline? Its exit status is made for CI."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pepper.config import CompareConfig
from pepper.config.composing import Composition
from pepper.console.progress import stepwise
from pepper.console.tables import comparisons_table, show
from pepper.devices.device import machine_hash
from pepper.errors import ConfigError
from pepper.measure.comparison import geometric_mean, typical
from pepper.tasks.result import Result
from pepper.tracking.matching import Matched, match
from pepper.tracking.profiles import LoggedProfile, logged_profiles, noise_floor_of
from pepper.tracking.store import Store

STATUS_SLOWER = 3


def compare(composition: Composition) -> Result:
    """Compare two profiles, or two sweeps cell by cell.

    Returns:
        Its status is 0, or 3 if a cell is slower by more than the threshold, beyond doubt.

    Raises:
        ConfigError: A run is not given, or the two cannot be compared.
        TrackingError: There is no such run.
    """
    config = composition.config
    options = config.compare
    store = Store(config.tracking)
    quiet = config.is_quiet
    baseline, candidate = (
        _trusted(logged_profiles(store, _given(options, key), stepwise(f"read the {key}", quiet)), key, options.force)
        for key in ("baseline", "candidate")
    )
    compared = match(baseline, candidate)
    if not options.force:
        for each in compared:
            for other in (*each.baseline[1:], *each.candidate):
                _check_alike(each.baseline[0], other)
    status = _say(compared, options)
    for key in ("baseline", "candidate"):
        if floor := noise_floor_of(store, _given(options, key)):
            show(f"noise floor of the {key}: {floor}", **{f"{key}_noise": asdict(floor)})
    return Result(status)


def _given(options: CompareConfig, key: str) -> str:
    run_id: str | None = getattr(options, key)
    if not run_id:
        raise ConfigError(f"compare.{key}: has no value; give compare.{key}=RUN, a run's identifier in MLflow")
    return run_id


def _trusted(profiles: Sequence[LoggedProfile], key: str, force: bool) -> list[LoggedProfile]:
    """Leave INVALID profiles out, unless forced; say so."""
    kept = [profile for profile in profiles if force or profile.verdict == "VALID"]
    for profile in profiles if kept else ():
        if not force and profile.verdict != "VALID":
            print(f"left out of the {key}: {profile.name} is INVALID: {profile.reasons}", file=sys.stderr)
    if not kept:
        raise ConfigError(
            f"compare.{key}: {profiles[0].name} is INVALID ({profiles[0].reasons});"
            " measure it again, or set compare.force=true"
        )
    return kept


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


def _say(compared: Sequence[Matched], options: CompareConfig) -> int:
    together = 1 - (1 - options.confidence) / len(compared)  # Bonferroni: all intervals hold at once
    rows = [_row(each, together, 1 + options.threshold_percent / 100) for each in compared]
    show(comparisons_table(rows, options.confidence), comparisons=rows)
    overall = geometric_mean([each.ratio for each in compared])
    low, high = (_change(ratio) for ratio in overall.interval(options.confidence))
    slower = [row["name"] for row in rows if row["verdict"] == "slower"]
    faster = all(row["verdict"] == "faster" for row in rows)
    outcome = "faster" if faster else "not slower"
    if slower:
        outcome = f"slower beyond {options.threshold_percent:g} %: {', '.join(slower)}"
    show(
        f"{outcome}; {len(rows)} compared, {_change(overall.value):+.1f} % in the mean ({low:+.1f} to {high:+.1f})",
        change_percent=_change(overall.value),
        low_percent=low,
        high_percent=high,
        slower=slower,
    )
    if any(len(each.baseline) == 1 or len(each.candidate) == 1 for each in compared):
        show("the intervals know one process a side only, and another differs: repeat with sweep axis measure.seed")
    return STATUS_SLOWER if slower else 0


def _row(compared: Matched, confidence: float, limit: float) -> dict[str, Any]:
    low, high = compared.ratio.interval(confidence)
    old, new = compared.baseline, compared.candidate
    name = new[0].name if new[0].name == old[0].name else f"{old[0].name} -> {new[0].name}"
    return {
        "name": name,
        "baseline_ms": typical([profile.latency_ms for profile in old]),
        "candidate_ms": typical([profile.latency_ms for profile in new]),
        "change_percent": _change(compared.ratio.value),
        "low_percent": _change(low),
        "high_percent": _change(high),
        "verdict": "slower" if low > limit else "faster" if high < 1 else "not slower",
        "baseline_runs": [profile.run_id for profile in old],
        "candidate_runs": [profile.run_id for profile in new],
    }


def _change(ratio: float) -> float:
    return 100 * (ratio - 1)
