"""The least of a terminal: what is on its screen after some output, so that tests see what a person would."""

import re

_PIECES = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def screen(output: str) -> list[str]:
    """The lines that are left on an endless screen, without blanks at their ends."""
    lines, row, column = [""], 0, 0
    for numbers, command, control, text in _PIECES.findall(output):
        if text:
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + len(text) :]
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif command == "A":
            row = max(0, row - int(numbers or 1))
        elif command == "K":  # of which rich uses the whole line alone
            assert numbers == "2"
            lines[row] = ""
        else:
            assert command in "mhl", command  # colours, and whether the cursor is seen
    return [line.rstrip() for line in lines]
