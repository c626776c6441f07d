"""What the reference kernel took around and amid a cell: was the machine's pace steady, and which was it?"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Paces:
    """What the reference kernel of :mod:`pepper.devices.pace` took, in microseconds of CPU time.

    Attributes:
        quiet_us: Right before the load began and right after it ended.
        timed_us: Between groups of samples, beside the load; empty for a short cell.
        loaded: Whether there was a load beside these.
        why: Why a time is missing; empty if none is.
    """

    quiet_us: Sequence[float]
    timed_us: Sequence[float]
    loaded: bool
    why: str = ""

    def metrics(self) -> dict[str, float]:
        """Return ``kernel_us``, the mean without a load, and ``pace_change_percent``: how far the slowest time lies
        above the fastest. Times beside a load, which takes some of the caches, are held against one another only."""
        groups = [self.quiet_us, self.timed_us] if self.loaded else [[*self.quiet_us, *self.timed_us]]
        figures = {}
        if self.quiet_us:
            figures["kernel_us"] = sum(self.quiet_us) / len(self.quiet_us)
        if changes := [100 * (max(group) / min(group) - 1) for group in groups if len(group) > 1]:
            figures["pace_change_percent"] = max(changes)
        return figures


def pace_of(metrics: dict[str, float], reference_us: float | None) -> dict[str, float]:
    """Return ``pace``: how fast the device was, over how fast it was when it was calibrated; nothing if unknown.

    Args:
        metrics: A cell's figures.
        reference_us: What the kernel took at the calibration.
    """
    if reference_us is None or "kernel_us" not in metrics:
        return {}
    return {"pace": reference_us / metrics["kernel_us"]}
