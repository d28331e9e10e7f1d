"""The original's routes (faucet, sink, source, retrieve and their kin), without the original's holes.

`room` joins what clients ask (`questions`), the nodes that poll (`polling`) and the modern nodes whose cards hold a
classic key (`keys`, `collecting`). All of it is pure: it is handed the time and no socket. `http` is its door.
"""
