"""The same games learned by another tool, PPO of stable-baselines3, and compared by CPU time."""
