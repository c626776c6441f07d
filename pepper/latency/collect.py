"""From logged cells to rows: characteristics are computed once a model file and kept in a Parquet file."""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pepper.errors import LatencyError, ModelError
from pepper.graph import characteristics
from pepper.graph.load import load_graph
from pepper.latency import features
from pepper.latency.dataset import Rows
from pepper.latency.features import FEATURES, SETTING, Setting, Values

if TYPE_CHECKING:
    import pandas as pd

KEY = ["params.model_sha256", "params.input_shapes"]
TARGETS = ("p50_ms", "p95_ms")
NAMES = ("model", "part", "device", "load")

Track = Callable[[Sequence[Any]], Iterable[Any]]
"""Passes items on, and may show how far that is."""


@dataclass(frozen=True)
class Collected:
    """What was collected.

    Attributes:
        rows: A row for each finished, VALID cell.
        left_out: Why cells were left out, with their number.
    """

    rows: Rows
    left_out: dict[str, int]


def collect(history: "pd.DataFrame", folder: Path, track: Track = iter) -> Collected:
    """Turn logged cells into rows.

    Args:
        history: Logged cells, one a row, as `tracking.history.history` returns them.
        folder: Where characteristics are kept between calls.
        track: Told of the model files that are read.

    Raises:
        LatencyError: No cell is finished and VALID.
    """
    import pandas as pd

    left_out: dict[str, int] = {}
    valid = trusted(history)
    if len(valid) < len(history):
        left_out["not finished or INVALID"] = len(history) - len(valid)
    if valid.empty:
        raise LatencyError("no VALID measurement to learn from; measure first, such as +sweep=loads")
    merged, described = _described(valid.sort_values("ended_ms", kind="stable"), folder, left_out, track)
    if merged.empty:
        raise LatencyError(f"no measured model can be described ({'; '.join(left_out)})")
    family = merged.get("params.family", pd.Series(index=merged.index, dtype=object))
    tails = merged.get("metrics.latency_p95_ms", pd.Series(np.nan, index=merged.index))
    rows = Rows(
        features=described,
        p50_ms=merged["metrics.latency_p50_ms"].to_numpy(float),
        p95_ms=np.asarray(tails, float),
        model=family.where(family.notna() & (family != "None"), merged["params.model"]).to_numpy(str),
        part=merged["params.model_sha256"].to_numpy(str),
        device=merged["params.device"].to_numpy(str),
        load=merged["params.load"].to_numpy(str),
    )
    return Collected(rows, left_out)


def trusted(history: "pd.DataFrame") -> "pd.DataFrame":
    """Return the cells that are finished and VALID."""
    median = "metrics.latency_p50_ms"
    if median not in history:  # nothing was measured, or every cell failed
        return history[:0]
    return history[(history["status"] == "FINISHED") & (history["verdict"] == "VALID") & history[median].notna()]


def describe(cells: Sequence[Mapping[str, Any]], folder: Path, track: Track = iter) -> Values:
    """Describe cells that need not have been measured.

    Args:
        cells: The parameters that each would be logged with.
        folder: Where characteristics are kept between calls.
        track: Told of the model files that are read.

    Returns:
        An array of shape (len(cells), len(FEATURES)).

    Raises:
        LatencyError: A model cannot be read.
    """
    import pandas as pd

    left_out: dict[str, int] = {}
    described = _described(pd.DataFrame(cells).add_prefix("params."), folder, left_out, track)[1]
    if left_out:
        raise LatencyError("; ".join(left_out))
    return described


def to_frame(rows: Rows) -> "pd.DataFrame":
    """Return rows as a table, columns named by feature, target and name."""
    import pandas as pd

    table = pd.DataFrame(rows.features, columns=list(FEATURES))
    return table.assign(**{name: getattr(rows, name) for name in (*TARGETS, *NAMES)})


def write(rows: Rows, file: Path) -> None:
    """Write rows as one Parquet table that carries its version and units."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pandas(to_frame(rows), preserve_index=False)
    about = {"pepper.features": features.digest(), "pepper.latency_unit": "ms", "pepper.digest": rows.digest}
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **about}), file)


def read(file: Path) -> Rows:
    """Read what `write` wrote.

    Raises:
        LatencyError: The file is no such table, or its features or units are others than this pepper's.
    """
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(file)
    except (OSError, ArrowException) as error:
        raise LatencyError(f"{file}: no dataset that can be read ({error}); make it with task=train") from error
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    for key, wanted in (("pepper.features", features.digest()), ("pepper.latency_unit", "ms")):
        if about.get(key) != wanted:
            raise LatencyError(f"{file}: {key} is {about.get(key)}, not {wanted}; make it again with task=train")
    frame = table.to_pandas()
    return Rows(
        frame[list(FEATURES)].to_numpy(float),
        *(frame[name].to_numpy(float) for name in TARGETS),
        *(frame[name].to_numpy(str) for name in NAMES),
    )


def _described(
    cells: "pd.DataFrame", folder: Path, left_out: dict[str, int], track: Track
) -> "tuple[pd.DataFrame, Values]":
    """Cells whose model can be read, in their order, and their features."""
    known = _characteristics(cells, folder / f"characteristics-{_version()}.parquet", left_out, track)
    merged = cells.merge(known, on=KEY, how="inner")
    return merged, np.hstack((merged[list(characteristics.FEATURES)].to_numpy(float), _settings(merged)))


def _version() -> str:
    return features.digest(characteristics.FEATURES)


def _settings(cells: "pd.DataFrame") -> Values:
    """Columns of the setting of each cell, each distinct setting read once."""
    columns = [f"params.{name}" for name in SETTING if f"params.{name}" in cells]
    empty = np.zeros((1, len(characteristics.FEATURES)))
    known: dict[tuple[Any, ...], Values] = {}
    result = np.empty((len(cells), len(FEATURES) - len(characteristics.FEATURES)))
    for index, values in enumerate(cells[columns].itertuples(index=False, name=None)):
        if values not in known:
            params = {column.removeprefix("params."): value for column, value in zip(columns, values, strict=True)}
            known[values] = features.rows(empty, Setting.from_params(params))[0, len(characteristics.FEATURES) :]
        result[index] = known[values]
    return result


def _characteristics(cells: "pd.DataFrame", file: Path, left_out: dict[str, int], track: Track) -> "pd.DataFrame":
    """Describe every measured model file, reading those again that are not in ``file`` yet."""
    import pandas as pd

    columns = [*KEY, *characteristics.FEATURES]
    known = pd.read_parquet(file) if file.exists() else pd.DataFrame(columns=columns)
    wanted = cells[[*KEY, "params.model_path"]].drop_duplicates(KEY)
    have = set(known[KEY].itertuples(index=False, name=None))
    fresh: list[Sequence[Any]] = []
    unknown = [each for each in wanted.itertuples(index=False, name=None) if each[:2] not in have]
    for sha256, shapes, path in track(unknown):
        try:
            fresh.append([sha256, shapes, *_describe(path, shapes)])
        except ModelError as error:
            reason = f"{path} cannot be read any more ({error})"
            of = (cells[KEY[0]] == sha256) & (cells[KEY[1]] == shapes)
            left_out[reason] = left_out.get(reason, 0) + int(of.sum())
    if fresh:
        new = pd.DataFrame(fresh, columns=columns)
        known = pd.concat([known, new], ignore_index=True) if len(known) else new
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")
        known.to_parquet(draft, index=False)
        draft.replace(file)
    return known


def _describe(path: str, shapes: str) -> list[float]:
    """Characteristics of a whole model file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", characteristics.CostWarning)
        graph = load_graph(path, shapes=json.loads(shapes))
        if not graph.operators:
            raise ModelError(f"{path}: has no operators")
        whole = characteristics.Characteristics(graph).table([0], [len(graph.operators)])[0]
    return [float(value) for value in whole]
