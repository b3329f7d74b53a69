"""What is measured against what, one command each (`python -m benchmarks.<name>`); `python -m benchmarks` runs all of them."""
