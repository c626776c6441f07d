"""The program that looks at the providers here: ``python -m pepper.devices.inspector``."""

from typing import Any

from pepper.devices.protocol import serve
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.facts import facts


def look(choice: dict[str, Any]) -> dict[str, str]:
    """Return what a provider and its hardware are; see :func:`pepper.devices.providers.facts.facts`."""
    return facts(Choice(**choice))


if __name__ == "__main__":
    serve({"look": look})
