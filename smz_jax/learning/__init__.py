"""Learning: replay, targets, losses, the training step, and what diagnoses it."""
