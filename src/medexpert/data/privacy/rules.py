"""What a rule is, and the arithmetic that tells an identifier from any other number."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

KINDS = (
    "NAME",
    "DATE",
    "AGE",
    "RECORD",
    "ID",
    "ACCOUNT",
    "DEVICE",
    "VEHICLE",
    "PHONE",
    "EMAIL",
    "URL",
    "IP",
    "ADDRESS",
    "POSTCODE",
    "LOCATION",
    "HOSPITAL",
    "WARD",
)
"""Every kind that can be found, as it stands in the redacted text: `[NAME]`. Of two kinds found for
the same characters the earlier counts."""

CJK = "\u3400-\u4dbf\u4e00-\u9fff"


@dataclass(frozen=True, order=True)
class Span:
    """Characters start..end of a text that hold an identifier of one kind."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Rule:
    """A pattern whose group `v` (or the whole match) is of one kind.

    `needs`: the rule runs only where one of these stands in the lower-cased text (() = always), so
    that a text without the word costs a substring search. `check` may refuse a match.
    """

    kind: str
    pattern: re.Pattern[str]
    needs: tuple[str, ...] = ()
    check: Callable[[str], bool] | None = None

    def spans(self, text: str, lowered: str) -> Iterator[Span]:
        """The matches in `text`; `lowered` is its lower-cased form, made once for all rules."""
        if self.needs and not any(word in lowered for word in self.needs):
            return
        group = "v" if "v" in self.pattern.groupindex else 0
        for match in self.pattern.finditer(text):
            start, end = match.span(group)
            if start < end and (self.check is None or self.check(match.group(group))):
                yield Span(start, end, self.kind)


def digits_of(value: str) -> list[int]:
    """The ASCII digits of a value."""
    return [int(c) for c in value if c in "0123456789"]


def chinese_id(value: str) -> bool:
    """A resident identity number: 17 digits and a check character (GB 11643-1999).

    The check is ISO 7064 MOD 11-2: sum of digit i times 2**(17 - i) modulo 11, and the birthday in
    digits 7 to 14 must exist.
    """
    value = value.upper()
    if len(value) != 18 or not value[:17].isdigit():
        return False
    total = sum(int(c) * pow(2, 17 - i, 11) for i, c in enumerate(value[:17]))
    good = "10X98765432"[total % 11] == value[17]
    return good and real_date(int(value[6:10]), int(value[10:12]), int(value[12:14]))


def luhn(value: str) -> bool:
    """Luhn's check digit (ISO/IEC 7812-1): every second digit doubled, the sum divisible by 10."""
    numbers = digits_of(value)[::-1]
    total = sum(numbers[0::2]) + sum(sum(divmod(2 * d, 10)) for d in numbers[1::2])
    return len(numbers) > 1 and total % 10 == 0


_VIN = {
    c: int(d) for c, d in zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True)
}


def vehicle_number(value: str) -> bool:
    """A vehicle identification number by its check digit (49 CFR 565.15), position 9."""
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    if len(value) != 17 or value.isdigit() or value.isalpha():
        return False
    total = sum(
        w * (int(c) if c.isdigit() else _VIN.get(c, 0)) for c, w in zip(value, weights, strict=True)
    )
    return value[8] == "0123456789X"[total % 11]


def real_date(year: int, month: int, day: int) -> bool:
    """A day that a record can hold: years 1850 to 2099."""
    lengths = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    return 1850 <= year <= 2099 and 1 <= month <= 12 and 1 <= day <= lengths[month - 1]


def numeric_date(value: str) -> bool:
    """Day, month and year in an order in use: y-m-d, d/m/y or m/d/y; two-digit years with `/`."""
    parts = re.split(r"[/.\-]", value)
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return False
    first, second, third = map(int, parts)
    if len(parts[0]) == 4:
        return real_date(first, second, third)
    if len(parts[2]) == 2:
        third += 2000
    return real_date(third, second, first) or real_date(third, first, second)


def month_day(value: str) -> bool:
    """Day and month in either order, as `3/14` or `14/3`."""
    first, second = map(int, value.split("/"))
    return real_date(2000, first, second) or real_date(2000, second, first)


def has_digits(least: int) -> Callable[[str], bool]:
    """A check: at least so many digits."""
    return lambda value: len(digits_of(value)) >= least
