"""Compare what scripts of anybody's own recorded, and two modules at hand: no family is needed."""
