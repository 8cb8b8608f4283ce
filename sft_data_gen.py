"""Writes labelled examples of one secret: the same as `memory-rl sft-data-gen`. Add --help for the keys."""

import sys

from memory_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["sft-data-gen", *sys.argv[1:]]))
