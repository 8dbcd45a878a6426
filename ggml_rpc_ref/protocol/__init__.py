"""Bytes and order, without sockets: messages to bytes and back, and whose turn it is."""
