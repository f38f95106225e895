"""Official repos that hold their own MMDetection 2.x: how their models are built, trained and tested."""
