"""Where client and backends meet: devices of this machine under the client's interface, and a server started as in C."""
