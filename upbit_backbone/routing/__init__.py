"""Which way to answer: a short table decides, the router acts."""
