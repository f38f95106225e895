"""Find out what a checkpoint holds: state dict and averages, whatever they are wrapped in."""
