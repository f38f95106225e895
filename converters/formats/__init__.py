"""Files and tensors in them, read without running anything that they hold."""
