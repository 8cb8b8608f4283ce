"""python bounds.py key=value ...: what a reward can teach at most, without training anything. See
README.md.
"""

import sys

from memory_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["bounds", *sys.argv[1:]]))
