"""Benchmarks: each a command with --help that prints a small table (see README.md)."""
