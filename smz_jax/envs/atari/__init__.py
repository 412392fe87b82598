"""Atari through envpool or ale-py."""
