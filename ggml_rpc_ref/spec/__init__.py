"""What is true: data about the protocol; imports the standard library only."""
