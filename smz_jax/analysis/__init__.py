"""What a trained model knows and does."""
