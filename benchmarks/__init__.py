"""What the bus costs, as ratios to its peers: ``python -m benchmarks`` or ``make bench``."""
