"""python sweep.py key=value ...: many experiments at once, from a protocol, a file or a grid typed here. See
docs/sweeps.md.
"""

import sys

from memory_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
