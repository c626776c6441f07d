"""The latency model: features, training, tuning, evaluation, baselines."""
