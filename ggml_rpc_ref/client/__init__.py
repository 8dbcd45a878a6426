"""A client: connections, devices, tensors, and a builder of graphs."""
