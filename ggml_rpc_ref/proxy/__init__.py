"""Between a client and a server: forward, follow, record."""
