"""`python -m memory_rl` is `memory-rl`."""

import sys

from memory_rl.cli import main

sys.exit(main())
