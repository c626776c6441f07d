"""What `benchmarks.fuzz` is made of: originals, how they are damaged, and the doors that they are put through."""
