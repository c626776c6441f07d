"""What `benchmarks.rough_handling` does to sweeps, and how it looks at what is left."""
