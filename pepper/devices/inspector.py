"""The program that looks at the providers here: ``python -m pepper.devices.inspector``."""

from typing import Any

from pepper import additions
from pepper.devices.protocol import serve
from pepper.devices.providers import trial
from pepper.devices.providers.abilities import abilities
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.facts import facts


def look(choice: dict[str, Any]) -> dict[str, str]:
    """Return what a provider and its hardware are; see :func:`pepper.devices.providers.facts.facts`."""
    return facts(Choice(**choice))


def available() -> dict[str, Any]:
    """Return the names of the providers that onnxruntime has, and of those that packages add."""
    return {"built_in": trial.built_in(), "added": additions.names(additions.PROVIDERS)}


def reads() -> dict[str, Any]:
    """Return which models onnxruntime reads; see :func:`pepper.devices.providers.abilities.abilities`."""
    return abilities()


def run(choice: dict[str, Any]) -> dict[str, float]:
    """Run a small model on a provider; see :func:`pepper.devices.providers.trial.first_run`."""
    return {"first_ms": trial.first_run(choice)}


if __name__ == "__main__":
    serve({"look": look, "available": available, "reads": reads, "run": run})
