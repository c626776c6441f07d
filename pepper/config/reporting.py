"""What a report shows and where it goes."""

from dataclasses import dataclass

from pepper.config.checks import MISSING


@dataclass
class ReportConfig:
    """The report of ``task=report``.

    Attributes:
        out: The HTML file to write.
        sweep: Name (the newest of that name) or run identifier of the one sweep to show; None shows all cells.
    """

    out: str = MISSING
    sweep: str | None = None
