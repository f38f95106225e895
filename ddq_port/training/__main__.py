"""`python -m ddq_port.training` is `ddq-train`; what torchrun's `-m` starts."""

from ddq_port.training.cli import main

main()
