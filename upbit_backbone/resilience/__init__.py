"""Good manners towards Upbit, and towards ourselves when Upbit fails."""
