"""A REST client in front of the simulator for the tests beside it."""

from tests.support.rest_scene import all_at_once, calm, scene, upbit

__all__ = ["all_at_once", "calm", "scene", "upbit"]
