"""What this project costs, measured: `python -m benchmarks.NAME` from the repository's root."""
