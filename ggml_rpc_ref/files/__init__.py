"""Files of conversations: recordings, and scripts from which a conversation can be replayed."""
