"""Benchmarks, one command each (`python -m benchmarks.<name>`); `python -m benchmarks` runs all of them."""
