"""All configs that come with a legacy code base, each carried over and compared."""
