"""The storm: faults over real sockets by a seeded plan, and the judgement of what a client made of them.

`plan` says what goes wrong when, `conductor` does it to a simulator, `ours` and `peers` are the clients, `judge`
compares what they saw with what the simulator published. All but the clients is the same for everybody.
"""
