"""Benchmarks: each prints ratios against a baseline of the same run and writes `build/bench/NAME.json`."""
