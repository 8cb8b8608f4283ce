"""Many experiments at once: the same as `memory-rl sweep`. Add --help for the keys; see docs/sweeps.md."""

import sys

from memory_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
