"""The command line `ddq-parity`: options, subcommands, how they talk and end."""
