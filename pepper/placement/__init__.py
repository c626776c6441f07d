"""Where to cut and where to place: problems, solvers, plans."""
