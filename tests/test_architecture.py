"""Imports run one way, and third parties stay in the room that owns them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pepper"

# What each room may import of pepper itself (its own modules apart).
    "interrupts": set(),
