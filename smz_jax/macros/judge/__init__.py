"""Which macros hold where they were replayed."""
