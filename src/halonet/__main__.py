"""The program as `python -m halonet`."""

import sys

from halonet_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
