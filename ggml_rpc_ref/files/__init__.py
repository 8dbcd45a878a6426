"""What lies around the protocol: recordings of conversations, and conversations written down to be held again."""
