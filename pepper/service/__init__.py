"""pepper over HTTP: a third door to the same tasks, beside the command line and `pepper.api`."""
