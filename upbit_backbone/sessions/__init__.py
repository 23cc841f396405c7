"""Keeping WebSockets alive: the lifecycle decides, the session acts, the manager spreads wishes over sessions."""
