"""Encoders with no method in them: the floor and the yardstick."""
