"""Where branches may run on different devices: the DAG problem and its exact solvers.

`problem` poses it (after Tarnawski et al., NeurIPS 2020): every operator gets a device, and devices exchange data
through the host's memory. `throughput` minimises the busiest device's time, `latency` the time of one request; both
prove their answer where the graph's downward-closed sets (`ideals`) are few enough, and else give the best found with
a bound (`paths`). `contraction` first merges what stays together. The solvers take any DAG, training graphs included.
Links of single pairs, pins, limits besides memory and part times that do not add up belong to what ``task=place``
solves: chains (`pepper.placement.problem`), and parts that run side by side (`pepper.placement.branched`).
"""
