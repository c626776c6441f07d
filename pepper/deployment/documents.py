"""YAML documents as files."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml


def as_yaml(about: str, documents: Sequence[Mapping[str, Any]]) -> str:
    """Return documents as a file's content.

    Args:
        about: What it is, in a line.
        documents: What it holds.
    """
    content: str = yaml.safe_dump_all(documents, sort_keys=False, width=120)
    return f"# {about}\n{content}"
