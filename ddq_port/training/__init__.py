"""Training and evaluation over mmengine's Runner: the command lines `ddq-train` and `ddq-eval`."""
