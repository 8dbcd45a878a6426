"""The benchmarks: every speed claim names one of these."""
