"""How fast, how lean and how steady upbit_backbone is, measured beside its peers in the same run.

    python -m benchmarks                    # everything, one table with ratios, JSON into benchmarks/results/
    python -m benchmarks ingest latency     # some of it
    python benchmarks/storm.py              # 505 s of faults over real sockets

The server is always a process of its own. Peers that are not installed are shown as "not installed". Nothing here
asserts an absolute time: the figures and the machine are printed, the reader judges.
"""
