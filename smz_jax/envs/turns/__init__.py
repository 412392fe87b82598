"""Pig: a game of two players in turn, with a die, whose exact answers are known."""
