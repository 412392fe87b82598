"""The table as a library for people: ranked, listed, compared."""
