"""A page over run directories: the same as `memory-rl report`. Add --help for the keys."""

import sys

from memory_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
