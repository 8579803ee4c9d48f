"""A typed client of a Sojourn service."""
