"""What several tests need: servers with faults, a server of a few answers, small models."""
