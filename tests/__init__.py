"""The tests: one file for each module of the package; what several of them need is in `support`."""
