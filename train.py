"""Reinforcement learning on one secret: the same as `memory-rl train`. Add --help for the keys."""

import sys

from memory_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
