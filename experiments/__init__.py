"""What a user runs: one short module each, a config and a call."""
