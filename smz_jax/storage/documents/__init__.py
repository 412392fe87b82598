"""The JSON documents of a run: one type, one writer and one strict reader each."""
