"""Two trainings compared by their logs."""
