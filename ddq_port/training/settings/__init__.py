"""Options of the command lines, the config that they make, and where a training begins."""
