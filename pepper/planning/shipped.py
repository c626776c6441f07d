"""The latency model that pepper ships: it answers where the registry has no champion."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from pepper.tracking.registry import Registry

SHIPPED = 0
"""Its version; those of a registry begin at 1."""
FOLDER = Path(__file__).parent.parent / "latency" / "shipped"


class LatencyModels(Registry):
    """Registered latency models, and as version `SHIPPED` the one that pepper ships."""

    def tags(self, version: int) -> dict[str, str]:
        """Return the tags of a version.

        Raises:
            TrackingError: There is no such version.
        """
        return dict(_tags()) if version == SHIPPED else super().tags(version)

    def run_id(self, version: int) -> str:
        """Return the run of the training that made a version; of the shipped one, there is none: empty.

        Raises:
            TrackingError: There is no such version.
        """
        return "" if version == SHIPPED else super().run_id(version)

    @contextmanager
    def artifacts(self, version: int, folder: str = "") -> Iterator[Path]:
        """Give the artifacts of the training that made a version, or a folder of them, for a while.

        Raises:
            TrackingError: There is no such version, or its artifacts are gone.
        """
        if version == SHIPPED:
            yield FOLDER / folder
            return
        with super().artifacts(version, folder) as there:
            yield there


def called(name: str, version: int) -> str:
    """Return what a version of a registered model is called."""
    return "the latency model that pepper ships" if version == SHIPPED else f"{name} version {version}"


def caution(registry: Registry, version: int) -> list[str]:
    """Return what to know of predictions of the shipped model, one line; nothing of any other version.

    Raises:
        TrackingError: The store does not answer.
    """
    if version != SHIPPED:
        return []
    facts = _tags()
    way = "measure here, then task=train and task=promote"
    if registry.champion() is None and (trained := registry.versions()):
        way = f"version {trained[-1]} of {registry.name} awaits promotion: task=promote"
    return [
        f"the model that pepper ships answers, which learned from {facts['rows']} cells of"
        f" {facts['models']} CNNs on one machine's CPU (median error {float(facts['left_out_median_error']):.1%} on a"
        f" CNN it had not seen there); of this machine or other models that is not known: {way}"
    ]


@cache
def _tags() -> dict[str, str]:
    found: dict[str, str] = json.loads((FOLDER / "tags.json").read_text())
    return found
