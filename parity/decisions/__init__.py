"""How close a discrete decision came to being otherwise."""
