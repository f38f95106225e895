"""Write a converted file with its manifest."""
