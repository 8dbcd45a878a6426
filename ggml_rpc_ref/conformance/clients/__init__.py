"""Clients under test: we play the server, by every rule that binds clients, and judge what a client sends and how it takes faults.

    program = Command("./my-client {endpoint}")
    for event in judge(program, select(among=CLIENT_CASES)): ...

`script` says what is played, `player` plays it (with our own server behind it, which the suite that judges servers must not use),
`scripted` is such a server for tests of a client in the same process,
`heard` is what came of it, `program` is the client, `bench` runs one against the other, `cases/` holds the cases by section, and
`judging` makes of them the events of which every report is made.
"""
