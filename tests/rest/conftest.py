"""A REST client in front of the simulator for the tests beside it."""

from tests.support.rest_scene import calm, scene, upbit

__all__ = ["calm", "scene", "upbit"]
