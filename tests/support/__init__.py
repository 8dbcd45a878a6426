"""What several tests need: sabotaged servers, a minimal server, small models, seeds, requirements."""
