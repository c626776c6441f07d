"""Axes to cells: identity, order, resume, progress."""
