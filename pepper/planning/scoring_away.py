"""Folds that are scored on hosts that joined: a host is brought the rows once, and gives back an error each time."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

import pepper
from pepper.errors import ConfigError, MeasureError
from pepper.hosts import reach
from pepper.hosts.remote import Joined
from pepper.latency.folds import Folds, Scorer
from pepper.latency.model import Hyperparameters
from pepper.measure.sent import from_pieces, in_pieces
from pepper.packages import XGBOOST, installed

_MOST_KEPT = 2
_MOST_FETCHES = 3
_CHOSEN = TypeAdapter(Hyperparameters)
_kept: dict[str, Folds] = {}
"""By what they were brought as, the newest last."""


def scorers_on(hosts: Sequence[str], folds: Folds) -> list[Scorer]:
    """Return what scores folds on hosts.

    Raises:
        ConfigError: One has no XGBoost, or another version of it or of pepper than this machine.
        DeviceError: One has not joined.
    """
    return [_HostScorer(reach.joined_hosts(), host, folds) for host in hosts]


class _HostScorer:
    """Scores folds on a host, which does nothing else then that is measured."""

    def __init__(self, joined: Joined, host: str, folds: Folds) -> None:
        joined.require(host, "tuning.hosts")
        theirs, ours = joined.ask(host, "learner"), learner()
        for name, version in ours.items():
            if theirs[name] != version:
                has = f"has {name} {theirs[name]}" if theirs[name] else f"lacks {name}"
                raise ConfigError(
                    f"tuning.hosts: {host} {has}, this machine has {version}; install the same there, or leave it out"
                    " (tuning.hosts=[] trains on this machine alone)"
                )
        self._joined, self._host = joined, host
        self._header, self._pieces = in_pieces(
            {"features": folds.features, "p50_ms": folds.p50_ms, "fold_of": folds.fold_of}
        )
        self._key = hashlib.sha256(b"".join(self._pieces)).hexdigest()

    def __call__(self, chosen: Hyperparameters, number: int) -> float:
        pieces: Sequence[bytes] = ()
        for _ in range(_MOST_FETCHES):
            request: dict[str, Any] = {
                "folds": self._key,
                "arrays": self._header,
                "chosen": asdict(chosen),
                "number": number,
            }
            found, _ = self._joined.exchange(self._host, "score", pieces, once=uuid.uuid4().hex, **request)
            if found is not None:
                return float(found)
            pieces = self._pieces
        raise MeasureError(
            f"host {self._host}: does not keep the rows that it is brought; leave it out of tuning.hosts"
        )


def learner() -> dict[str, str | None]:
    """Return with what this machine would learn: versions by name, None of what it lacks."""
    found = installed(XGBOOST)
    return {"pepper": pepper.__version__, "xgboost": found[0].version if found else None}


def score(
    folds: str, arrays: list[Any], chosen: dict[str, Any], number: int, pieces: Sequence[bytes] = ()
) -> float | None:
    """Score hyperparameters on a fold here, for a head.

    Returns:
        The error; None where the rows are lacked.
    """
    if pieces:
        _kept[folds] = Folds(**from_pieces(arrays, pieces))
        for key in list(_kept)[:-_MOST_KEPT]:
            del _kept[key]
    if folds not in _kept:
        return None
    return _kept[folds].error(_CHOSEN.validate_python(chosen), number)
