"""What a run is made of, and how its sides are run."""
