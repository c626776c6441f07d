"""Devices that are not at hand: known by a few imported latencies, and by what the champion knows of other devices."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pepper.errors import LatencyError, listed, nearest
from pepper.graph import characteristics
from pepper.latency import collect, description, elsewhere
from pepper.latency.adaptation import choose
from pepper.latency.dataset import Rows
from pepper.latency.features import COLUMN, SETTING, Setting, Values, rows
from pepper.latency.model import LatencyModel
from pepper.latency.unseen import LEAST, Behaviour, Kin, UnseenDevice, UnseenPrediction

if TYPE_CHECKING:
    import pandas as pd

STRANGE = 0.3
"""Median error, each measurement left out, beyond which a device is said to be like none that was seen."""

ENOUGH = 30
"""Imported latencies of a device that others are learned from."""

_PARTS = len(characteristics.FEATURES)
_PARAMS = [f"params.{name}" for name in elsewhere.OF_MODEL]


@dataclass(frozen=True)
class AbsentDevice:
    """A device that is not at hand.

    Attributes:
        name: Its name.
        device: What its latencies say.
        latency_ms: The latencies, shape (n,).
        left_out_ms: What the others say of each of them, shape (n,); NaN where there are too few.
    """

    name: str
    device: UnseenDevice
    latency_ms: Values
    left_out_ms: Values

    @property
    def median_error(self) -> float:
        """Median relative error of the latencies, each left out."""
        return float(np.median(np.abs(self.left_out_ms / self.latency_ms - 1)))

    def predict(self, parts: Values) -> UnseenPrediction:
        """Predict how long models take, from their characteristics, shape (n, len(characteristics.FEATURES))."""
        return self.device.predict([rows(parts, Setting())])

    def warnings(self) -> list[str]:
        """What to know of its predictions, one line each."""
        if not self.median_error > STRANGE:  # NaN, too: nothing can be said
            return []
        return [
            f"{self.name} behaves like no device that was seen, or its latencies contradict each other: each, left out,"
            f" is {self.median_error:.0%} off by median; measure more models there, or these again"
        ]


def learn(name: str, logged: "pd.DataFrame", champion: LatencyModel, known: Rows) -> AbsentDevice:
    """Learn a device from its imported latencies.

    Args:
        name: Its name.
        logged: All logged cells, as `tracking.history.history` returns them.
        champion: The latency model.
        known: The rows that it was trained on: the devices that it knows, and models to compare them over.

    Raises:
        LatencyError: No measurement of it was imported, or too few idle ones.
    """
    trusted = collect.trusted(logged)
    if collect.PROVENANCE not in trusted:
        raise LatencyError(f"{name}: no measurement from elsewhere was imported; give task=adapt adapt.csv=FILE")
    imported = trusted[trusted[collect.PROVENANCE].notna()]
    there = imported[imported["params.device"] == name]
    if there.empty:
        devices = sorted(imported["params.device"].unique())
        hint = nearest(name, devices) or f"; there are {listed(devices)}"
        raise LatencyError(f"{name}: no measurement of a device of this name was imported{hint}")
    measured, latency_ms = _idle(there)
    if len(latency_ms) < LEAST:
        raise LatencyError(
            f"{name}: {len(latency_ms)} idle latencies of models that are described; at least {LEAST} are needed"
        )
    others = [_idle(rows_of) for device, rows_of in imported.groupby("params.device") if device != name]
    imported_too = [LatencyModel.fit(*each).p50_ms for each in others if len(each[1]) >= ENOUGH]
    pool = np.unique(np.vstack((rows(known.features[:, :_PARTS], Setting()), measured)), axis=0)
    kin = Kin([*behaviours(champion, known), *imported_too], pool)
    left_out = np.full(len(latency_ms), np.nan)
    if len(latency_ms) > LEAST:
        for row in range(len(latency_ms)):
            kept = np.arange(len(latency_ms)) != row
            fitted = UnseenDevice.fit([kin], [measured[kept]], latency_ms[kept])
            left_out[row] = fitted.predict([measured[[row]]]).p50_ms[0]
    return AbsentDevice(name, UnseenDevice.fit([kin], [measured], latency_ms), latency_ms, left_out)


def _idle(cells: "pd.DataFrame") -> tuple[Values, Values]:
    """Features of a device's idle cells whose models are described, nothing being known of it, and their latencies."""
    idle = cells[cells["params.load"] == "idle"]
    texts = [description.decode(text, of_any_version=True) for text in idle[collect.CARRIED]]
    told = np.array([values is not None for values in texts], bool)
    parts = np.array([values for values in texts if values is not None]).reshape(-1, _PARTS)
    return rows(parts, Setting()), idle["metrics.latency_p50_ms"].to_numpy(float)[told]


def behaviours(champion: LatencyModel, known: Rows) -> list[Behaviour]:
    """How each device that the champion was trained on behaves when it is idle."""
    found: list[Behaviour] = []
    for device in np.unique(known.device):
        there = known.features[known.device == device]
        setting = there[np.argmin(there[:, COLUMN["load_percent"]]), [COLUMN[name] for name in SETTING]]
        facts = dict(zip(SETTING, setting.tolist(), strict=True))
        facts |= {"load_percent": 0.0, "load_cores": 0.0, "load_accelerator_percent": 0.0}
        found.append(
            partial(_behave, champion, Setting(**{field.name: facts[field.name] for field in fields(Setting)}))
        )
    return found


def _behave(champion: LatencyModel, setting: Setting, features: Values) -> Values:
    return champion.p50_ms(rows(features[:, :_PARTS], setting))


def propose(logged: "pd.DataFrame", champion: LatencyModel, device: str, count: int) -> Sequence[dict[str, object]]:
    """Propose the models whose latencies say most of a device: rows for `elsewhere.write`, their latencies left open.

    Args:
        logged: All logged cells.
        champion: The latency model.
        device: The device's name.
        count: How many.

    Raises:
        LatencyError: Too few models are known.
    """
    columns = [name for name in _PARAMS if name in logged]
    models = logged[columns].drop_duplicates("params.model_sha256") if "params.model_sha256" in logged else logged[:0]
    told: list[tuple[dict[str, str], Values]] = []
    for values in models.itertuples(index=False, name=None):
        facts = {
            name.removeprefix("params."): text
            for name, text in zip(columns, values, strict=True)
            if isinstance(text, str)
        }
        described = description.decode(facts.get(description.PARAM))
        if described is not None:
            told.append((facts, described))
    if len(told) < LEAST:
        raise LatencyError(f"{len(told)} models were measured here; at least {LEAST} are needed to choose from")
    candidates = rows(np.array([described for _, described in told]), Setting())
    names = np.array([facts["model_sha256"] for facts, _ in told])
    return [
        {
            "model": told[index][0].get("model_path"),
            "device": device,
            "unit": "ms",
            "input_shapes": told[index][0].get("input_shapes"),
            "sha256": told[index][0]["model_sha256"],
            "characteristics": told[index][0][description.PARAM],
        }
        for index in choose(candidates, names, champion.roofline, count)
    ]
