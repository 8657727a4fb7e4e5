"""``python -m harn``: the same as the ``harn`` command."""

from harn.cli.main import main

if __name__ == "__main__":
    main()
