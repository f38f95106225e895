"""Checkpoints that a training or an evaluation begins with."""
