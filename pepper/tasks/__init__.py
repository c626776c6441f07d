"""One file a task; wiring only."""
