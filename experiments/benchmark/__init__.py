"""How fast this project is on a machine: each part of a run, the search, and acting.

`parts` measures what a run consists of, `search` both engines against each other and against the
networks alone, `rollout` environment and search apart, in turn and overlapped.
"""
