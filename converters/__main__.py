"""Make `python -m converters` work like `ddq-convert`."""

from converters.cli.main import main

if __name__ == "__main__":
    main()
