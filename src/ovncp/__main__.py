"""`python -m ovncp` is the command `ovncp`."""

import sys

from ovncp.cli.main import main

sys.exit(main())
