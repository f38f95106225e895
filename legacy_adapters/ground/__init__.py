"""What all packages of this toolkit share; standard library only, but for :mod:`.console`, which no side loads."""
