"""The command line `ddq-convert`."""
