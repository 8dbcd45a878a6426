"""The package's sockets: those that listen, a client's end of a connection (`stream`), a server's or a proxy's (`channel`)."""
