"""Typed results that show themselves as data frames, in notebooks above all."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

Row = TypeVar("Row")


class Framed:
    """Mixin for a dataclass: one result, one row."""

    def to_frame(self) -> "pd.DataFrame":
        """Return it as a data frame of one row, a column a field."""
        return FramedRows([self]).to_frame()

    def _repr_html_(self) -> str:
        return FramedRows([self])._repr_html_()


class FramedRows(tuple[Row, ...]):
    """Several results of one dataclass: a tuple that shows itself as a table."""

    __slots__ = ()

    def to_frame(self) -> "pd.DataFrame":
        """Return them as a data frame, a row each, a column a field."""
        import pandas as pd

        fields: list[dict[str, Any]] = [asdict(row) for row in self]  # type: ignore[call-overload]
        return pd.DataFrame(fields)

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(float_format="{:.4g}".format))
