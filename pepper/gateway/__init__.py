"""Requests over HTTP into a standing pipeline, and its answers back."""
