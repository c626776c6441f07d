"""What the reference kernel took around and amid a cell: was the machine's pace steady, and which was it?"""

from collections.abc import Sequence
from dataclasses import dataclass

from pepper.devices.pace import KernelTime


@dataclass(frozen=True)
class Paces:
    """What the reference kernel of :mod:`pepper.devices.pace` took.

    Attributes:
        quiet: Right before the load began and right after it ended.
        timed: Between groups of samples, beside the load; empty for a short cell.
        loaded: Whether there was a load beside these.
        why: Why a time is missing; empty if none is.
    """

    quiet: Sequence[KernelTime]
    timed: Sequence[KernelTime]
    loaded: bool
    why: str = ""

    def metrics(self) -> dict[str, float]:
        """Return of the arithmetic ``kernel_us``, the mean without a load, and ``pace_change_percent``, how far the
        slowest time lies above the fastest; of memory ``kernel_memory_us`` and ``pace_memory_change_percent``.

        Times beside a load, which takes some of the caches, are held against one another only.
        """
        figures = {}
        for name, half in (("", 0), ("memory_", 1)):
            quiet_us, timed_us = [time[half] for time in self.quiet], [time[half] for time in self.timed]
            groups = [quiet_us, timed_us] if self.loaded else [[*quiet_us, *timed_us]]
            if quiet_us:
                figures[f"kernel_{name}us"] = sum(quiet_us) / len(quiet_us)
            if changes := [100 * (max(group) / min(group) - 1) for group in groups if len(group) > 1]:
                figures[f"pace_{name}change_percent"] = max(changes)
        return figures


def pace_of(metrics: dict[str, float], reference_us: float | None) -> dict[str, float]:
    """Return ``pace``: how fast the device was, over how fast it was when it was calibrated; nothing if unknown.

    Args:
        metrics: A cell's figures.
        reference_us: What the kernel's arithmetic took at the calibration.
    """
    if reference_us is None or "kernel_us" not in metrics:
        return {}
    return {"pace": reference_us / metrics["kernel_us"]}
