"""What we know now: the newest value of every stream, how sure we are of it, and what REST told us."""
