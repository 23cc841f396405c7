"""Keeping WebSockets alive: the lifecycle decides, the session acts, the manager spreads requests over sessions."""
