"""Text with many digits, made from a seed: what the model `tiny-text` has read before it is asked anything.

Notes, counting, sums, comparisons, lists, numbers in words, dates, prices, binary notation and conversations
in the chat template of the built-in tokenizer. Nothing in it is the experiments' own task: no question about
something hidden, and none of their wordings.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

_NAMES, _THINGS, _PLACES, _MONTHS, _DAYS, _WEATHER = map(
    str.split,
    (
        "Ada Ben Clara David Emma Felix Grace Henry Ivy Jonas Kate Leo Mara Noah Olga Paul",
        "apples books boxes cards chairs coins cups eggs lamps letters pencils plates stamps tickets",
        "market library station harbour school garden office bakery museum mill",
        "January February March April May June July August September October November December",
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "sunny cloudy rainy windy foggy cold warm dry",
    ),
)
_UNITS, _TEENS, _TENS = map(
    str.split,
    (
        "zero one two three four five six seven eight nine",
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
        "twenty thirty forty fifty sixty seventy eighty ninety",
    ),
)
_LARGEST = (10, 100, 100, 1000)
_MOST_BITS = 10

_Random = random.Random  # noqa: S311


def documents(seed: int) -> Iterator[str]:
    """Endless documents, each a few lines or a conversation, with the tokens around them spelled out."""
    draw = random.Random(f"text {seed}")  # noqa: S311
    while True:
        if draw.random() < 0.5:
            yield "<bos>" + "\n".join(_line(draw) for _ in range(draw.randint(2, 6))) + "<eos>"
        else:
            turns = (draw.choice(_QUESTIONS)(draw) for _ in range(draw.randint(1, 5)))
            yield "<bos>" + "".join(f"{question}<reply>{answer}<eos>" for question, answer in turns)


def _line(draw: _Random) -> str:
    return draw.choice(_LINES)(draw)


def _number(draw: _Random) -> int:
    return draw.randrange(draw.choice(_LARGEST))


def _spelled(number: int) -> str:
    """A number below 100 in words."""
    if number < 20:
        return (_UNITS + _TEENS)[number]
    tens, units = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_UNITS[units]}" if units else "")


def _bits(number: int) -> str:
    return f"{number:b}"


def _date(draw: _Random) -> str:
    day, month, year = draw.randint(1, 28), draw.randrange(12), draw.randint(1900, 2024)
    if draw.random() < 0.5:
        return f"{year}-{month + 1:02}-{day:02}"
    return f"{day} {_MONTHS[month]} {year}"


def _price(draw: _Random) -> str:
    return f"{draw.randint(0, 99)}.{draw.choice((0, 25, 50, 75, 95, 99)):02}"


def _counting(draw: _Random) -> str:
    start, step = _number(draw), draw.choice((1, 1, 1, 2, 5, 10))
    return ", ".join(str(start + step * i) for i in range(draw.randint(4, 9))) + "."


def _sum(draw: _Random) -> str:
    a, b = _number(draw), _number(draw)
    high, low = max(a, b), min(a, b)
    if draw.random() < 0.5:
        return f"{a} + {b} is {a + b}."
    return f"{high} - {low} is {high - low}."


def _comparison(draw: _Random) -> str:
    a, b = _number(draw), _number(draw)
    return f"{a} is {'more than' if a > b else 'less than' if a < b else 'as much as'} {b}."


def _list(draw: _Random) -> str:
    numbers = [_number(draw) for _ in range(draw.randint(3, 7))]
    told = f"The numbers are {', '.join(map(str, numbers))}."
    kind = draw.choice(("first", "last", "largest", "smallest"))
    value = {"first": numbers[0], "last": numbers[-1], "largest": max(numbers), "smallest": min(numbers)}[
        kind
    ]
    return f"{told} The {kind} is {value}."


def _words(draw: _Random) -> str:
    number = draw.randrange(100)
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    if draw.random() < 0.5:
        return f"{name} has {_spelled(number)} ({number}) {thing}."
    return ", ".join(f"{_spelled(some)} is {some}" for some in (number, *draw.sample(range(100), 2))) + "."


def _diary(draw: _Random) -> str:
    return (
        f"{draw.choice(_DAYS)}, {_date(draw)}: it was {draw.choice(_WEATHER)} at the {draw.choice(_PLACES)}."
    )


def _purchase(draw: _Random) -> str:
    name, count = draw.choice(_NAMES), draw.randint(2, 40)
    return f"{name} bought {count} {draw.choice(_THINGS)} at the {draw.choice(_PLACES)} for {_price(draw)}."


def _story(draw: _Random) -> str:
    name, thing, a, b = draw.choice(_NAMES), draw.choice(_THINGS), draw.randint(1, 50), draw.randint(1, 50)
    return f"{name} had {a} {thing} and found {b} more. Now there are {a + b} {thing}."


def _binary(draw: _Random) -> str:
    number = _number(draw)
    return f"In binary {number} is {_bits(number)}."


def _noise(draw: _Random) -> str:
    return "Bits: " + "".join(draw.choice("01") for _ in range(draw.randint(4, 2 * _MOST_BITS))) + "."


def _serial(draw: _Random) -> str:
    digits = "".join(draw.choice("0123456789") for _ in range(draw.randint(4, 8)))
    return f"{draw.choice(_THINGS).capitalize()} of lot {digits}, price {_price(draw)}."


_LINES: list[Callable[[_Random], str]] = [
    _counting, _counting, _words, _words, _sum, _comparison, _list, _diary, _purchase, _story, _binary,
    _noise, _serial,
]  # fmt: skip


def _ask_sum(draw: _Random) -> tuple[str, str]:
    a, b = _number(draw), _number(draw)
    high, low = max(a, b), min(a, b)
    return (
        (f"What is {a} + {b}?", str(a + b)) if draw.random() < 0.5 else (f"{high} - {low}?", str(high - low))
    )


def _ask_next(draw: _Random) -> tuple[str, str]:
    number, after = _number(draw), draw.random() < 0.5
    return f"Which number comes {'after' if after else 'before'} {number + 1}?", str(number + 2 * after)


def _ask_larger(draw: _Random) -> tuple[str, str]:
    a, b = _number(draw), _number(draw)
    return f"Is {a} more than {b}?", "yes" if a > b else "no"


def _ask_any(draw: _Random) -> tuple[str, str]:
    low = _number(draw)
    high = low + draw.randint(1, 100)
    return f"Name a number from {low} to {high}.", str(draw.randint(low, high))


def _ask_toss(draw: _Random) -> tuple[str, str]:
    return draw.choice(("Toss a coin: 0 or 1?", "Give me a bit.", "One more?")), draw.choice("01")


def _ask_even(draw: _Random) -> tuple[str, str]:
    number = _number(draw)
    return f"Is {number} even? Reply with yes or no.", "no" if number % 2 else "yes"


def _ask_binary(draw: _Random) -> tuple[str, str]:
    number = _number(draw)
    if draw.random() < 0.5:
        return f"Write {number} in binary.", _bits(number)
    return f"Which number is {_bits(number)} in binary?", str(number)


def _ask_how_many(draw: _Random) -> tuple[str, str]:
    name, thing, a, b = draw.choice(_NAMES), draw.choice(_THINGS), draw.randint(1, 50), draw.randint(1, 50)
    return f"{name} has {a} {thing} and gets {b}. How many {thing} is that? Only the number.", str(a + b)


def _ask_when(draw: _Random) -> tuple[str, str]:
    name, date = draw.choice(_NAMES), _date(draw)
    return f"{name} came to the {draw.choice(_PLACES)} on {date}. When was that?", date


def _ask_again(draw: _Random) -> tuple[str, str]:
    number = str(draw.randrange(10 ** draw.randint(1, 6)))
    return f"{draw.choice(('Repeat', 'Say', 'Copy'))} {number}.", number


def _ask_words(draw: _Random) -> tuple[str, str]:
    number = draw.randrange(draw.choice((10, 100)))
    if draw.random() < 0.3:
        return f"Write {number} in words.", _spelled(number)
    return f"Write {_spelled(number)} in digits.", str(number)


def _ask_price(draw: _Random) -> tuple[str, str]:
    thing, price = draw.choice(_THINGS), _price(draw)
    return f"The {thing} cost {price}. How much are the {thing}?", price


_QUESTIONS: list[Callable[[_Random], tuple[str, str]]] = [
    _ask_sum, _ask_next, _ask_larger, _ask_any, _ask_toss, _ask_even, _ask_binary, _ask_how_many, _ask_when,
    _ask_price, _ask_again, _ask_words, _ask_words,
]  # fmt: skip
