"""The page of a verdict: one file of HTML that needs nothing beside it."""
