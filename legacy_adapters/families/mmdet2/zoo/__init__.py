"""The configs that come with MMDetection 2.x."""
