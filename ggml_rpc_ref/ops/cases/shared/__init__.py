"""What the cases of several ops have in common."""
