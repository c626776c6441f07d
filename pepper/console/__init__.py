"""What a person or a script reads: output, progress, small tables."""
