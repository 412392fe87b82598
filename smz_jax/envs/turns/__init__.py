"""Pig: a game of two to four players in turn, with a die, whose exact answers are known."""
