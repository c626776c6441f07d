"""What a model file is like, by its hash: described when it is measured, kept with the run, never believed by path."""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pepper.caches import read_table, write_table
from pepper.errors import ModelError
from pepper.graph import characteristics
from pepper.graph.ir import Graph, check_operators
from pepper.graph.load import load_graph
from pepper.graph.model import ModelFile
from pepper.graph.source import model_hash, resolve_path
from pepper.latency import features
from pepper.latency.features import Values

if TYPE_CHECKING:
    import pandas as pd

PARAM = "characteristics"
"""The run's parameter that keeps the description of what was measured."""
KEY = ("model_sha256", "input_shapes")

Model = tuple[str, str]
"""A model at fixed input shapes: its SHA-256 (hex) and the shapes as JSON."""
Track = Callable[[Sequence[Any]], Iterable[Any]]
"""Passes items on, and may show how far that is."""


def version() -> str:
    """Return what descriptions must share to mean the same: the list of characteristics and their version."""
    return features.digest((str(characteristics.VERSION), *characteristics.FEATURES))


def encode(values: Values) -> str:
    """Return a description as text that a run can keep: the characteristics that are not 0, by name."""
    pairs = zip(characteristics.FEATURES, values.tolist(), strict=True)
    named = {name: int(value) if value.is_integer() else value for name, value in pairs if value}
    return json.dumps({"version": version(), **named})


def decode(text: object, of_any_version: bool = False) -> Values | None:
    """Return what `encode` wrote; None if it is damaged, or of another version.

    Args:
        text: The text.
        of_any_version: Take what an earlier pepper counted a little otherwise, too: better than nothing where the
            file is gone.
    """
    try:
        content = json.loads(str(text))
        same = content.pop("version") == version()
        if not (same or (of_any_version and content)) or not content.keys() <= set(characteristics.FEATURES):
            return None
        values = np.array([content.get(name, 0) for name in characteristics.FEATURES], float)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
    return values if np.isfinite(values).all() else None


def describe(path: str, sha256: str, shapes: str) -> Values:
    """Describe a whole model file.

    Args:
        path: Where it was when it was measured.
        sha256: Its hash then.
        shapes: Its input shapes (JSON).

    Returns:
        An array of shape (len(characteristics.FEATURES),).

    Raises:
        ModelError: The file is gone, cannot be read, or is another one now.
    """
    file = resolve_path(path)
    return _described(path, file, sha256, lambda: load_graph(file, shapes=json.loads(shapes)))


def describe_model(model: ModelFile) -> Values:
    """Describe a model that was found, at its shapes and the values given for its inputs; see `describe`."""
    return _described(str(model.file), model.file, model.content_hash, model.graph)


def _described(path: str, file: Path, sha256: str, load: Callable[[], Graph]) -> Values:
    if (found := model_hash(file)) != sha256:
        raise ModelError(f"{path}: another model is there now (sha256 {found[:12]}, measured was {sha256[:12]})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", characteristics.CostWarning)
        graph = load()
        check_operators(graph)
        values = characteristics.Characteristics(graph).table([0], [len(graph.operators)])[0]
    if model_hash(file) != sha256:
        raise ModelError(f"{path}: was changed while it was read")
    return np.asarray(values, float)


def kept_in(folder: Path) -> Path:
    """Return the file of a folder that keeps descriptions of this version."""
    return folder / f"characteristics-{version()}.parquet"


def describe_all(
    wanted: Mapping[Model, str], file: Path, track: Track = iter
) -> tuple[dict[Model, Values], dict[Model, ModelError]]:
    """Describe models, each once: what was described before is kept, by hash.

    Args:
        wanted: The path of each model.
        file: Where descriptions are kept between calls; see `kept_in`.
        track: Told of the models that are read.

    Returns:
        The descriptions, and why the others could not be made.
    """
    known = _kept(file)
    errors: dict[Model, ModelError] = {}
    fresh: dict[Model, Values] = {}
    for model in track([model for model in wanted if model not in known]):
        try:
            fresh[model] = describe(wanted[model], *model)
        except ModelError as error:
            errors[model] = error
    if fresh:
        known |= fresh
        write_table(to_frame(known), file)
    return {model: known[model] for model in wanted if model in known}, errors


def to_frame(described: Mapping[Model, Values]) -> "pd.DataFrame":
    """Return descriptions as a table: the columns of `KEY`, then the characteristics."""
    import pandas as pd

    values = np.array(list(described.values()), float).reshape(-1, len(characteristics.FEATURES))
    table = pd.DataFrame(values, columns=list(characteristics.FEATURES))
    models = pd.DataFrame(list(described), columns=list(KEY), dtype=object)
    return pd.concat([models, table], axis=1)


def _kept(file: Path) -> dict[Model, Values]:
    table = read_table(file, [*KEY, *characteristics.FEATURES])
    if table is None:
        return {}
    values = table[list(characteristics.FEATURES)].to_numpy(float)
    return dict(zip(table[list(KEY)].itertuples(index=False, name=None), values, strict=True))
