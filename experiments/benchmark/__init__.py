"""How fast this project is on a machine: each part of a run, the search, and acting."""
