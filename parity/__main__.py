"""``python -m parity`` is ``ddq-parity``."""

from .cli.main import main

if __name__ == "__main__":
    main()
