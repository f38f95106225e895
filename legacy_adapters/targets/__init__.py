"""Models that several families are carried to: the new side of each, and the names of its weights."""
