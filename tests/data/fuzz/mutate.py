"""Seeded mutations of bytes: the same seed and number give the same broken file everywhere."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from formats import Seed, tarred, zipped

Mutation = Callable[[bytes, random.Random], bytes]
DEEP = 10_000
_ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "big5", "cp1252", "utf-7")
_ODD = "\u0000\u2028\u0085\ufeff\ufdd0\u202e\u200b\x1b\x0c\u0301\U0001f9ea\uffff\x7f\u00a0"
_VALUES = (
    "null", "true", "[]", "{}", '""', "-1", "0", "1e400", "NaN", "-Infinity", "1" * 5000,
    '"\\ud800"', '"\\u0000"', '"a\\nb"', '["a", 1]', '{"a": {"b": []}}', "9007199254740993",
    '"\\u202e"', "1.5", '"A"', '"Z"', '[[["x"]]]', '"' + "y" * 3000 + '"',
)  # fmt: skip
_DTDS = (
    '<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c '
    '"&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;"><!ENTITY e '
    '"&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;"><!ENTITY x "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;">]>',
    '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
    '<!DOCTYPE r [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p; <!ENTITY x "1">]>',
    "<!DOCTYPE r [<!ENTITY % p \"<!ENTITY x '1'>\"> %p;]>",
    '<!DOCTYPE r [<!ENTITY x "&x;">]>',
)
_LABEL = re.compile(rb'"(?:[A-Z]|yes|no|maybe|yesno|single|True|train)"|,[A-Z]\r?\n')


def _at(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def _put(data: bytes, rng: random.Random, piece: bytes) -> bytes:
    at = _at(data, rng)
    return data[:at] + piece + data[at:]


def bit_flips(data: bytes, rng: random.Random) -> bytes:
    """One to sixteen bits turned."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def noise(data: bytes, rng: random.Random) -> bytes:
    """A run of bytes overwritten."""
    at, size = _at(data, rng), rng.choice((1, 8, 64, 1000))
    return data[:at] + rng.randbytes(size) + data[at + size :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: _at(data, rng)]


def hole(data: bytes, rng: random.Random) -> bytes:
    """A piece is missing."""
    at = _at(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 30, 500)) :]


def twice(data: bytes, rng: random.Random) -> bytes:
    """A piece comes twice."""
    at, size = _at(data, rng), rng.choice((1, 40, 2000))
    return data[: at + size] + data[at:]


def line_twice(data: bytes, rng: random.Random) -> bytes:
    """A line comes again at the end or beside itself: duplicated ids."""
    lines = data.splitlines(keepends=True)
    if lines:
        line = rng.choice(lines)
        lines.insert(rng.choice((len(lines), lines.index(line))), line)
    return b"".join(lines)


def lines_shuffled(data: bytes, rng: random.Random) -> bytes:
    """Lines in another order."""
    lines = data.splitlines(keepends=True)
    rng.shuffle(lines)
    return b"".join(lines)


def nul_bytes(data: bytes, rng: random.Random) -> bytes:
    """Zeros strewn in."""
    for _ in range(rng.choice((1, 3, 50))):
        data = _put(data, rng, b"\0" * rng.choice((1, 1, 4, 512)))
    return data


def line_ends(data: bytes, rng: random.Random) -> bytes:
    """CR, CRLF, or any of them in turn."""
    marks = rng.choice(([b"\r"], [b"\r\n"], [b"\r", b"\r\n", b"\n", b"\n\r", b"\x0b", b"\n\n"]))
    return b"".join(line + rng.choice(marks) for line in data.split(b"\n"))


def other_encoding(data: bytes, rng: random.Random) -> bytes:
    """The text, or its second half, in another encoding."""
    name = rng.choice(_ENCODINGS)
    half = rng.choice((0, 0, len(data) // 2))
    text = data[half:].decode("utf-8", "replace")
    return data[:half] + text.encode(name, "replace")


def byte_order_mark(data: bytes, rng: random.Random) -> bytes:
    """A byte-order mark at the front or in the middle."""
    mark = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf" * 2))
    return rng.choice((mark + data, _put(data, rng, mark)))


def half_surrogates(data: bytes, rng: random.Random) -> bytes:
    """Half a surrogate pair, as an escape or as bytes, inside a string where there is one."""
    piece = rng.choice((rb"\ud800", rb"\udfff", b"\xed\xa0\x80", rb"\ud83d\u0041", rb"\ud83d"))
    spots = [found.end() for found in re.finditer(rb'": ?"', data)]
    at = rng.choice(spots) if spots else _at(data, rng)
    return data[:at] + piece + data[at:]


def odd_characters(data: bytes, rng: random.Random) -> bytes:
    """Controls, marks of direction, private and combining characters."""
    for _ in range(rng.choice((1, 5))):
        data = _put(data, rng, rng.choice(_ODD).encode() * rng.choice((1, 1, 300)))
    return data


def other_value(data: bytes, rng: random.Random) -> bytes:
    """A JSON value of another kind or size in place of one."""
    spots = list(re.finditer(rb': ?("(?:[^"\\]|\\.)*"|-?\d+|null|true|false)', data))
    if not spots:
        return noise(data, rng)
    for spot in sorted(rng.sample(spots, min(len(spots), rng.choice((1, 1, 4)))), key=_start)[::-1]:
        data = data[: spot.start(1)] + rng.choice(_VALUES).encode() + data[spot.end(1) :]
    return data


def _start(found: re.Match[bytes]) -> int:
    return found.start()


def other_key(data: bytes, rng: random.Random) -> bytes:
    """A key renamed, doubled or made long."""
    spots = list(re.finditer(rb'"(\w+)": ?', data))
    if not spots:
        return hole(data, rng)
    spot = rng.choice(spots)
    name = rng.choice((b"x", b"", rb"\n", b"k" * 2000, spot[1].upper(), rng.choice(spots)[1]))
    return data[: spot.start(1)] + name + data[spot.end(1) :]


def deep(data: bytes, rng: random.Random) -> bytes:
    """A value nested 10,000 deep."""
    pair = rng.choice((("[", "]"), ('{"a":', "}"), ("<b>", "</b>"), ("<div>", "</div>")))
    value = (pair[0] * DEEP + "1" + pair[1] * DEEP).encode()
    spots = list(re.finditer(rb': ?("(?:[^"\\]|\\.)*")', data))
    if pair[0][0] == "<" or not spots:
        tags = [found.end() for found in re.finditer(rb"<\w+>", data)]
        at = rng.choice(tags) if tags else _at(data, rng)
        return data[:at] + value + data[at:]
    spot = rng.choice(spots)
    return data[: spot.start(1)] + value + data[spot.end(1) :]


def long_line(data: bytes, rng: random.Random) -> bytes:
    """A million characters in one place."""
    return _put(data, rng, rng.choice((b"a", b" ", b"\\", b"[", "字".encode(), b'"')) * (1 << 20))


def wrong_case(data: bytes, rng: random.Random) -> bytes:
    """Labels, or everything, in the other case."""
    if rng.random() < 0.3:
        return data.swapcase()
    return _LABEL.sub(lambda found: found[0].swapcase() if rng.random() < 0.7 else found[0], data)


def wrong_label(data: bytes, rng: random.Random) -> bytes:
    """Labels that are none."""
    new = rng.choice((b'"perhaps"', b'"AZ"', b'" "', b'"\xef\xbc\xa2"', b'"1"', b'"A,B"'))
    return _LABEL.sub(lambda found: new if found[0][:1] == b'"' else found[0], data)


def quotes(data: bytes, rng: random.Random) -> bytes:
    """Marks that csv, JSON and XML care for."""
    for _ in range(rng.choice((1, 3, 10))):
        data = _put(
            data, rng, rng.choice((b'"', b",", b"\n", b"\t", b"<", b"&", b"\\", b"}", b"]"))
        )
    return data


def entities(data: bytes, rng: random.Random) -> bytes:
    """A DTD of ours and references to what it declares: bombs, outside files, parameters."""
    data = re.sub(rb"<!DOCTYPE[^>]*>", b"", data)
    dtd = rng.choice(_DTDS).encode()
    root = re.search(rb"<([A-Za-z]\w*)", data)
    if root:
        dtd = dtd.replace(b"DOCTYPE r", b"DOCTYPE " + root[1])
    at = root.start() if root else 0
    tags = [found.end() for found in re.finditer(rb"<[A-Za-z]\w*>", data[at:])]
    spot = at + rng.choice(tags) if tags else len(data)
    return data[:at] + dtd + data[at:spot] + b"&x;" * rng.choice((1, 3)) + data[spot:]


def odd_references(data: bytes, rng: random.Random) -> bytes:
    """Character references and sections that are no XML, or hardly."""
    piece = rng.choice(
        (b"&#0;", b"&#xD800;", b"&nbsp;", b"&#99999999;", b"]]>", b"<![CDATA[", b"<!--", b"<?x ?>",
         b"&lt;script&gt;", b"<a:b/>", b"</x>")
    )  # fmt: skip
    return _put(data, rng, piece)


def tag_lost(data: bytes, rng: random.Random) -> bytes:
    """An element's tag or its name is gone."""
    spots = list(re.finditer(rb"</?(\w+)[^>]*>", data))
    if not spots:
        return hole(data, rng)
    spot = rng.choice(spots)
    if rng.random() < 0.5:
        return data[: spot.start()] + data[spot.end() :]
    return data.replace(spot[1], rng.choice((b"X", b"", b"Document")))


def nothing(data: bytes, rng: random.Random) -> bytes:
    """Empty, blank, or one character."""
    return rng.choice((b"", b"\n", b" \n \n", b"\xef\xbb\xbf", b"{", b"[]", b"{}", b"null", b"\0"))


PLAIN: tuple[Mutation, ...] = (
    bit_flips, noise, cut, hole, twice, line_twice, lines_shuffled, nul_bytes, line_ends,
    other_encoding, byte_order_mark, half_surrogates, odd_characters, other_value, other_key, deep,
    long_line, wrong_case, wrong_label, quotes, entities, odd_references, tag_lost, nothing,
)  # fmt: skip
BYTES: tuple[Mutation, ...] = (bit_flips, noise, cut, hole, twice, nul_bytes, nothing, quotes)
_NOT_TEXT = (b"\x1f\x8b", b"BZh", b"PK\x03\x04", b"PAR1", b"%PDF")


# -- packing ---------------------------------------------------------------------------------------


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@cache
def bomb(kind: str) -> bytes:
    """A few hundred kilobytes that unpack to 200 MB of blanks."""
    pack = {"gzip": _gzip, "bzip2": bz2.compress, "xz": lzma.compress}[kind]
    return b"".join([pack(b" " * (20 << 20))] * 10)


def packed(data: bytes, rng: random.Random) -> bytes:
    """The file packed, and then perhaps cut, flipped, doubled or followed by other bytes."""
    pack = rng.choice((_gzip, _gzip, bz2.compress, lzma.compress))
    data = pack(data)
    kind = rng.randrange(8)
    if kind == 0:
        return data[: _at(data, rng)]
    if kind == 1:
        return bit_flips(data, rng)
    if kind == 2:
        return data + rng.choice((b"\0" * 100, b"junk", data, data[: len(data) // 2]))
    if kind == 3:
        return _gzip(data)
    return data


def repacked(data: bytes, rng: random.Random) -> bytes:
    """An archive with other members: paths outside, broken or foreign ones."""
    names = ("../x.xml", "/x.xml", "a/../../x.xml", "x.xml", "C:\\x.xml", "x.csv", "x\n.xml")
    members = {rng.choice(names): rng.choice((data[:2000], b"", b"<a/>", b"\0" * 5000))}
    members["answer.csv"] = data[:500]
    return rng.choice((zipped, tarred))(members)


def mutated(seeds: Sequence[Seed], seed: int, number: int) -> tuple[Seed, tuple[str, ...]]:
    """(broken file, names of what was done): mutation `number` of the campaign `seed`."""
    rng = random.Random(f"{seed}:{number}")
    chosen = seeds[number % len(seeds)] if rng.random() < 0.9 else rng.choice(seeds)
    target, beside = chosen.data, dict(chosen.beside)
    # Of files that belong together any one may be the broken one.
    name = rng.choice([chosen.name, *beside]) if rng.random() < 0.4 else chosen.name
    target = beside.get(name, chosen.data)
    table = BYTES if target.startswith(_NOT_TEXT) or b"ustar" in target[:512] else PLAIN
    done: list[str] = []
    for mutation in rng.choices(table, k=rng.choice((1, 1, 1, 2, 3))):
        target = mutation(target, rng)
        done.append(mutation.__name__)
    special = rng.random()
    if special < 0.12:
        target = packed(target, rng)
        done.append("packed")
    elif special < 0.125:
        kind = rng.choice(("gzip", "bzip2", "xz"))
        target = bomb(kind)
        done.append("bomb")
    elif special < 0.15:
        other = rng.choice(seeds)
        target = rng.choice((other.data, target[: len(target) // 2] + other.data))
        done.append("other_format")
    elif special < 0.17:
        target = repacked(target, rng)
        done.append("repacked")
    if name == chosen.name:
        return replace(chosen, data=target), tuple(done)
    beside[name] = target
    return replace(chosen, beside=beside), tuple(done)
