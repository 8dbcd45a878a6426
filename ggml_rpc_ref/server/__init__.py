"""A server: what a peer may touch, what each request does, how a graph is checked and run."""
