"""Macros tried where they claim to hold: in the real emulator, or against a grid's exact rules.

A macro claims, from a state where the model holds all its transitions to be certain, that playing
it leads where the model says and pays what it says. Here that is tried, for the macros of a run and
for controls: as many from shuffled play, at random, and from the untrained network.
"""
