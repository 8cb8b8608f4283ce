"""What a reward can teach at most; nothing is trained: as `memory-rl bounds`. Add --help for the keys."""

import sys

from memory_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["bounds", *sys.argv[1:]]))
