"""Playing: decisions, the actor, evaluation."""
