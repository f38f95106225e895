"""Find out what a checkpoint holds: state dict, averages, layout, differences."""
