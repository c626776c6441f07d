"""From logged cells to rows that a latency model learns from."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pepper.caches import digest, hash_file
from pepper.documents import read_bytes
from pepper.errors import LatencyError, listed
from pepper.graph import characteristics
from pepper.latency import description, elsewhere, features
from pepper.latency.dataset import Rows
from pepper.latency.description import Track
from pepper.latency.features import FEATURES, SETTING, Setting, Values
from pepper.names import PARAMS, Measured, only_named, wholes

if TYPE_CHECKING:
    import pandas as pd

KEY = [f"params.{name}" for name in description.KEY]
CARRIED = f"params.{description.PARAM}"
PROVENANCE = f"params.{elsewhere.PROVENANCE}"
_MOST_BYTES = 2**29
_MOST_SAID = 200  # letters of a library's reason
TARGETS = ("p50_ms", "p95_ms")
NAMES = ("model", "part", "device", "load", "group")


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
        track: Told of the models that are read.

    Raises:
        LatencyError: No cell is finished and VALID.
    """
    import pandas as pd

    left_out: dict[str, int] = {}
    valid = trusted(history)
    if len(valid) < len(history):
        left_out["not finished or INVALID"] = len(history) - len(valid)
    if valid.empty:
        raise LatencyError("no VALID measurement to learn from; measure first, such as task=profile +sweep=loads")
    if PROVENANCE in valid:
        speed = valid.get("params.device_gflops", pd.Series(index=valid.index, dtype=object))
        unknown = valid[PROVENANCE].notna() & speed.isna()
        if unknown.any():
            left_out["measured elsewhere, on a device of unknown speed"] = int(unknown.sum())
            valid = valid[~unknown]
    bound = valid.get("params.binding", pd.Series(index=valid.index, dtype=object)).isin(["device", "graph"])
    if bound.any():
        left_out["inputs and outputs bound to the device: stages have theirs on the host"] = int(bound.sum())
        valid = valid[~bound]
    merged, described = _described(valid.sort_values("ended_ms", kind="stable"), folder, left_out, track)
    if merged.empty:
        raise LatencyError(f"no measured model can be described ({listed(list(left_out))}); measure again")
    tails = merged.get("metrics.latency_p95_ms", pd.Series(np.nan, index=merged.index))
    models = wholes([Measured.of(params) for params in _params(merged, PARAMS)])
    rows = Rows(
        features=described,
        p50_ms=merged["metrics.latency_p50_ms"].to_numpy(float),
        p95_ms=np.asarray(tails, float),
        model=np.array([model.name for model in models], str),
        part=merged["params.model_sha256"].to_numpy(str),
        device=merged["params.device"].to_numpy(str),
        load=merged["params.load"].to_numpy(str),
        group=np.array([model.sha256 for model in models], str),
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
        track: Told of the models that are read.

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
    """Write rows as one Parquet table that carries its version and units, and its hash beside it."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pandas(to_frame(rows), preserve_index=False)
    about = {"pepper.features": features.digest(), "pepper.latency_unit": "ms", "pepper.digest": rows.digest}
    content = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **about}), content)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.getvalue())
    hash_file(file).write_bytes(digest(content.getvalue()))


def read(file: Path) -> Rows:
    """Read what `write` wrote; the hash, where there is one, is checked before anything parses the rest.

    Raises:
        LatencyError: The file is no such table, or its features or units are others than this pepper's.
    """
    from pyarrow import ArrowException, parquet

    try:
        content = read_bytes(file, _MOST_BYTES)
        if hash_file(file).is_file() and read_bytes(hash_file(file), 64) != digest(content):
            raise ValueError("not what was saved")
        table = parquet.read_table(io.BytesIO(content))
        about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        for key, wanted in (("pepper.features", features.digest()), ("pepper.latency_unit", "ms")):
            if about.get(key) != wanted:
                raise LatencyError(f"{file}: {key} is {about.get(key)}, not {wanted}; make it again with task=train")
        frame = table.to_pandas(ignore_metadata=True)
        if "group" not in frame:  # written before models were told apart by their hashes
            frame["group"] = frame["model"].map(only_named)
        return Rows(
            frame[list(FEATURES)].to_numpy(float),
            *(frame[name].to_numpy(float) for name in TARGETS),
            *(frame[name].to_numpy(str) for name in NAMES),
        )
    except LatencyError:
        raise
    except (OSError, ArrowException, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:_MOST_SAID]
        raise LatencyError(f"{file}: no dataset that can be read ({reason}); make it with task=train") from error


def _described(
    cells: "pd.DataFrame", folder: Path, left_out: dict[str, int], track: Track
) -> "tuple[pd.DataFrame, Values]":
    """Cells whose model is described, in their order, and their features.

    A model is described as its run says, or else by its file, if that is still the one that was measured, or else as
    an earlier pepper described it.
    """
    import pandas as pd

    texts = cells.get(CARRIED, pd.Series(index=cells.index, dtype=object))
    carried = {text: description.decode(text) for text in texts.dropna().unique()}
    found = np.full((len(cells), len(characteristics.FEATURES)), np.nan)
    for row, text in enumerate(texts):
        if (values := carried.get(text)) is not None:
            found[row] = values
    untold = np.isnan(found).any(axis=1)
    if untold.any():
        older = {text: description.decode(text, of_any_version=True) for text in texts[untold].dropna().unique()}
        gone = texts.map(lambda text: older.get(text) is None)
        table = _characteristics(cells[untold], gone[untold], description.kept_in(folder), left_out, track)
        found[untold] = cells.loc[untold, KEY].merge(table, on=KEY, how="left")[list(characteristics.FEATURES)]
        for row in np.flatnonzero(np.isnan(found).any(axis=1)).tolist():
            if (values := older.get(texts.iloc[row])) is not None:
                found[row] = values
    kept = ~np.isnan(found).any(axis=1)
    return cells[kept], np.hstack((found[kept], _settings(cells[kept])))


def _settings(cells: "pd.DataFrame") -> Values:
    """Columns of the setting of each cell, each distinct setting read once."""
    empty = np.zeros((1, len(characteristics.FEATURES)))
    known: dict[tuple[Any, ...], Values] = {}
    result = np.empty((len(cells), len(FEATURES) - len(characteristics.FEATURES)))
    for index, params in enumerate(_params(cells, SETTING)):
        values = tuple(params.values())
        if values not in known:
            known[values] = features.rows(empty, Setting.from_params(params))[0, len(characteristics.FEATURES) :]
        result[index] = known[values]
    return result


def _params(cells: "pd.DataFrame", names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield some of each run's parameters, as far as the table has them."""
    known = [name for name in names if f"params.{name}" in cells]
    for values in cells[[f"params.{name}" for name in known]].itertuples(index=False, name=None):
        yield dict(zip(known, values, strict=True))


def _characteristics(
    cells: "pd.DataFrame", gone: "pd.Series[bool]", file: Path, left_out: dict[str, int], track: Track
) -> "pd.DataFrame":
    """Describe every measured model by its file, where that is still the one that was measured.

    Cells of which nothing is known without it (``gone``) are left out.
    """
    rows = cells[[*KEY, "params.model_path"]].drop_duplicates(KEY).itertuples(index=False, name=None)
    wanted = {(sha256, shapes): path for sha256, shapes, path in rows}
    found, errors = description.describe_all(wanted, file, track)
    for (sha256, shapes), error in errors.items():
        reason = f"{wanted[sha256, shapes]} no longer tells what was measured: {error}"
        of = (cells[KEY[0]] == sha256) & (cells[KEY[1]] == shapes) & gone
        if of.any():
            left_out[reason] = left_out.get(reason, 0) + int(of.sum())
    return description.to_frame(found).rename(columns=dict(zip(description.KEY, KEY, strict=True)))
