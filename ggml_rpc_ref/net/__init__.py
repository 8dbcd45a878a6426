"""The only sockets of the package: the server, the client, and the stream below it."""
