"""Benchmarks: each figure stands beside something measured in the same run, so that it tells on any machine."""
