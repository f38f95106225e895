"""Come to a verdict and name the first wrong place."""
