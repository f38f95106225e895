"""``python -m ddq_port.export`` is `ddq-export`."""

from .cli import main

main()
