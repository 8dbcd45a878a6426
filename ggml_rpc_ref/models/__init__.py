"""Whole models from GGUF files, run by the client: an example to read, and what the command `run` does."""
