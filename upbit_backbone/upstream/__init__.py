"""Upstream: where streams come from with `upstream=`, a relay's Redis server, and Upbit itself while that has none.

stream_history ● reads what a relay has written; relay_connection ● is to a session what a WebSocket is to Upbit;
upstream ● decides which of the two is opened, and when to go back. Limits that machines keep together: redis_count ●
counts at Redis, fleet_count ● there or, while that is away, a share here; answers: shared_answers ●
there, answer_files ● here; breakers that are open: shared_circuits ●; scripts: how their scripts begin.
"""
