"""Which logged profiles of two sweeps measured the same cell."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pepper.errors import ConfigError, listed
from pepper.measure.comparison import Ratio, median_ratio
from pepper.tracking.profiles import LoggedProfile

# What makes cells of one model comparable.
_SETTING = (
    *("device", "load", "threads", "share", "throttle", "provider", "provider_options", "binding"),
    *("optimization", "spinning", "parallel"),
)


@dataclass(frozen=True)
class Matched:
    """What measured the same cell on each side: several processes, if it was repeated."""

    baseline: list[LoggedProfile]
    candidate: list[LoggedProfile]

    @cached_property
    def ratio(self) -> Ratio:
        """The candidate's median latency over the baseline's."""
        return median_ratio(
            [profile.latency_ms for profile in self.baseline], [profile.latency_ms for profile in self.candidate]
        )


def match(baseline: Sequence[LoggedProfile], candidate: Sequence[LoggedProfile]) -> list[Matched]:
    """Match the cells by model, device, load and session: two single ones as they are.

    Cells of one file belong together; what is then left is matched by the model's name, as a new file has it.

    Raises:
        ConfigError: They share no cell.
    """
    if len(baseline) == len(candidate) == 1:
        return [Matched(list(baseline), list(candidate))]
    matched: list[Matched] = []
    place = {profile.run_id: index for index, profile in enumerate(candidate)}
    for by in ("model_sha256", "model"):
        old, new = _cells(baseline, by), _cells(candidate, by)
        common = old.keys() & new.keys()
        pairs = [Matched(old[key], new[key]) for key in common]
        matched += pairs if by == "model_sha256" else _of_one_file(pairs)
        baseline, candidate = ([p for key in side if key not in common for p in side[key]] for side in (old, new))
    if not matched:
        raise ConfigError("compare.candidate: shares no cell with the baseline; name runs of like models and devices")
    if alone := len(_cells([*baseline, *candidate], "model_sha256")):
        print(f"{alone} cells are in one of the two only: left out", file=sys.stderr)
    return sorted(matched, key=lambda each: place[each.candidate[0].run_id])


def _cells(profiles: Sequence[LoggedProfile], by: str) -> dict[tuple[str | None, ...], list[LoggedProfile]]:
    """Return the profiles of each cell, its model told by a parameter, or by its name where there is no such."""
    cells: dict[tuple[str | None, ...], list[LoggedProfile]] = {}
    for profile in profiles:
        model = profile.params.get(by) or profile.params.get("model")
        cells.setdefault((model, *(profile.params.get(name) for name in _SETTING)), []).append(profile)
    return cells


def _of_one_file(cells: Sequence[Matched]) -> list[Matched]:
    """Leave out the cells whose model's name several files of one side have; say so, and which files are others."""
    clear: list[Matched] = []
    unclear: list[Matched] = []
    for cell in cells:
        files = [{profile.params.get("model_sha256") for profile in side} for side in (cell.baseline, cell.candidate)]
        (clear if max(map(len, files)) == 1 else unclear).append(cell)
    for names, what in (
        (_models(unclear), "several files have this name, none of them is in both: left out"),
        (_models(clear), "another file in the candidate than in the baseline"),
    ):
        if names:
            print(f"{listed(names)}: {what}", file=sys.stderr)
    return clear


def _models(cells: Sequence[Matched]) -> list[str]:
    return sorted({str(cell.candidate[0].params.get("model")) for cell in cells})
