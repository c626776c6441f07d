"""Timed inference in worker processes, under load, with a verdict."""
