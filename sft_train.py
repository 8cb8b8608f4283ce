"""Supervised learning on one secret: the same as `memory-rl sft-train`. Add --help for the keys."""

import sys

from memory_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["sft-train", *sys.argv[1:]]))
