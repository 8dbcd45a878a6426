"""A scheduler: one graph over several servers and this machine, as ggml_backend_sched spreads it."""
