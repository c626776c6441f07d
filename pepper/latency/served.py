"""A registered latency model as MLflow's ``python_function``: data frames of features in, of predictions out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepper.latency.features import FEATURES
from pepper.latency.model import LatencyModel

if TYPE_CHECKING:
    import pandas as pd


class ServedLatencyModel:
    """What MLflow asks for predictions.

    Args:
        model: What predicts.
    """

    def __init__(self, model: LatencyModel) -> None:
        self._model = model

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Return a row of ``p50_ms``, ``p95_ms``, ``low_ms`` and ``high_ms`` for each row of features."""
        import pandas as pd

        del params  # there is nothing to choose
        found = self._model.predict(model_input[list(FEATURES)].to_numpy(float))
        columns = {name: getattr(found, name) for name in ("p50_ms", "p95_ms", "low_ms", "high_ms")}
        return pd.DataFrame(columns, index=model_input.index)


def _load_pyfunc(data_path: str) -> ServedLatencyModel:
    """Load a version; MLflow's name for what it calls.

    Raises:
        LatencyError: It is damaged, or was trained on another feature list.
    """
    return ServedLatencyModel(LatencyModel.load(Path(data_path)))
