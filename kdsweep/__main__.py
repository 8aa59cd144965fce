"""`python -m kdsweep`."""

from kdsweep.cli import main

if __name__ == "__main__":
    main()
