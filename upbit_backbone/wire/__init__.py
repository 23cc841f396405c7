"""Upbit's bytes: endpoints, frames and messages, and the two transports that carry them."""
