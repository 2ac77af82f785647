"""Patients' notes made up for tests of the redactor: the values planted in them are known.

A note is a table of rows. A row (kind, frames, values) plants one value of a kind: one of `values`
in one of `frames`, in place of its `{}`; alternatives stand between `|`. A field of a value is
filled by :func:`drawn`. A row that is only a text stands in every note as it is. Kinds ending in
`bare` are planted without any word around them that tells what they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random

TEXT = (
    " The swelling was 12-15 mm, treated with 5 mg twice daily for 2-3 days; BP 120/80 mmHg, "
    "pH 7.40, p = 0.03. "
)
HAN_TEXT = "。予以口服药物5mg每日两次，共3-5天，血压120/80mmHg，体温36.5℃，复查血常规正常。"

_ENGLISH_DATES = (
    "{day} {month} {year}|{month} {day}, {year}|{mm}/{dd}/{year}|{year}-{mm}-{dd}",
    "{month} {day}th|{day}-{mon}-{year}|{month} {year}|{day}/{m}/{yy}|{day}.{m}.{year}",
)
ENGLISH: tuple[tuple[str, str, str] | str, ...] = (
    (
        "NAME",
        "Patient: {}|Name: {}\n|Mr. {} was seen|RE: Mrs {},|Patient name: {}",
        "{given} {own}",
    ),
    (
        "RECORD",
        " MRN: {}| MRN {}| Hospital number: {}| Medical record number {}| Chart #{}",
        "{,A,H-}{#7}",
    ),
    ("DATE", "\nDOB: {}|\nDate of birth: {}|\nborn {}", _ENGLISH_DATES[0]),
    (
        "AGE",
        ", a {}-year-old man|, aged {}|, age {}|, {} years old|, {} y/o woman",
        "{90..105}",
    ),
    TEXT,
    (
        "NAME",
        "Dr. {} saw the patient|Seen by: {}|Attending: {}|Prof {} advised rest|Consultant: {}",
        "{doctor}|{first} {doctor}",
    ),
    ("DATE", " on {}|. Admitted {}|, reviewed {}", "|".join(_ENGLISH_DATES)),
    (
        "HOSPITAL",
        " at {}.| in the {}.|. Transferred from {}.",
        "St. {first}'s Hospital|{town} General Hospital|{town} Medical Center|{last} Clinic",
    ),
    ("WARD", " Moved to {}.| Now in {}.", "Ward 7B|Room 312|Bed 14|ward 3"),
    (
        "ADDRESS",
        " Lives at {}.| Address: {}.| She returned to {}.",
        "{1..998} {street} {Street,Road,Ave,Lane}",
    ),
    ("POSTCODE", " ZIP {}| Postcode: {}", "{#5}|SW1A 1AA|M1 4BT"),
    ("LOCATION", " He lives in {}.| Born in {}.", "{town}"),
    TEXT,
    (
        "PHONE",
        " Phone: {}| Call {} with questions| Tel {}| Contact {}",
        "(617) 555-0{#3}|212-736-{#4}|020 7946 0{#3}|+1 415 555 2{#3}|+44 20 7946 0{#3}",
    ),
    ("EMAIL", " Email: {}|, {}", "{mailbox}.{#3}@example.{com,org,co.uk}"),
    ("URL", " Portal {} | see {} ", "https://portal.example.org/p/{#6}|www.clinic{#2}.com/r"),
    ("IP", " from {} ", "10.{0..255}.{0..255}.{1..254}"),
    ("ID", " SSN {} | SSN: {} ", "{100..599}-{10..98}-{1000..9998}"),
    ("ID", " NHS number {} | NHS No: {} ", "{nhs}"),
    (
        "ACCOUNT",
        " Policy number: {} | Member ID {} | Account # {} | Driver's license number {} ",
        "{W,BC,}{#8}",
    ),
    ("DEVICE", " Pacemaker serial number {} | Serial No. {} | Device ID: {} ", "PM{#6}"),
    ("VEHICLE", " License plate {} | Vehicle registration: {} ", "ABX {#4}|KT{#2} ZXC"),
    (
        "NAME again",
        "\n{} was discharged home.|\nWe advised {} to rest.|\n{}'s pain settled.",
        "{own}",
    ),
    (
        "NAME",
        "\nHis wife {} was told.|\nHer son, {}, was told.|\nSigned: {}|\nSincerely,\n{}",
        "{first} {last}",
    ),
    (
        "NAME bare",
        "\n{} came with cough.|\nDiscussed with {} today.|\nthen {} asked to go home.",
        "{Zvonimir,Oluwaseun,Thanh,Marisol} {Babic,Adeyemi,Nguyen,Cordova}",
    ),
    ("LOCATION bare", " She flew to {} last week.| Her clinic is in {}.", "Boise|Ljubljana|Takoma"),
)
"""A discharge letter in English."""

CHINESE: tuple[tuple[str, str, str] | str, ...] = (
    ("NAME", "姓名：{} |患者姓名：{}，|患者：{}\n|{}，男，|患者{}，女，", "{own}"),
    ("AGE", "{}岁，", "{90..102}"),
    ("ID", "身份证号：{}，|证件号码 {}，|{}，", "{identity}"),
    ("RECORD", "住院号：{} |病历号:{} |门诊号{} |病案号：{} ", "{,ZY,M-}{#8}"),
    ("PHONE", "电话：{}，|联系方式{}，|{}，", "1{3,5,8,9}{#9}|010-{2..8}{#7}"),
    (
        "ADDRESS",
        "住址：{}。|现住{}。|家庭住址：{}。",
        "{浙江省杭州市西湖区,北京市朝阳区,广东省深圳市南山区}{文三路,建设街,人民大道}"
        "{1..299}号{,5幢302室}",
    ),
    (
        "DATE",
        "于{}入院|{}就诊|日期：{}",
        "{year}年{m}月{day}日|{year}-{mm}-{dd}|{m}月{day}日|{year}年{m}月|{year}.{m}.{day}|"
        "二〇一九年三月五日",
    ),
    HAN_TEXT,
    (
        "HOSPITAL",
        "转至{}治疗。|曾在{}就诊。|{}复查。",
        "北京协和医院|浙江大学医学院附属第一医院|上海市第六人民医院|青山县中医院|四川大学华西医院",
    ),
    ("NAME", "{}主任查房，|主治医师：{}。|由{}医生手术，|记录者：{}\n", "{doctor}"),
    ("WARD", "住{}，|收入{}。", "12床|心内科三病区|+5床"),
    ("ACCOUNT", "医保卡号：{}，|保单号 {}，|银行卡号：{}，", "{#12}"),
    ("VEHICLE", "车牌{}。", "{京,沪,浙,粤}{A,B,C}{#5}"),
    ("DEVICE", "起搏器序列号：{}。", "SN{#7}"),
    ("EMAIL", "邮箱{}。", "user{#4}@example.com"),
    HAN_TEXT,
    ("NAME again", "{}诉疼痛减轻。|嘱{}休息。", "{own}"),
    ("NAME bare", "{}昨日来院复诊。|与{}沟通病情。", "钱多多|冯宝宝|褚遂良"),
)
"""A hospital record in Chinese."""

WORDS = {
    "first": """
        Adaeze Bjorn Chidi Daniel Emily Fatima Grace Hiroshi Ingrid James Kavya Liam Maria Nkechi
        Olga Priya Rosa Sven Thomas Yusuf""",
    "last": """
        Abernathy Brown Castellanos D'Souza Eriksson Fitzgerald Garcia Hartmann Ito Johansson
        Kowalczyk Lindqvist McAllister Nakamura O'Neil Patel Quintero Rossi Smith-Jones Tanaka Ueda
        Vance Whitfield Young Zielinski""",
    "han_first": """
        伟 芳 娜 敏 静 强 磊 洋 艳 勇 建国 小红 志明 丽华 晓东 雨桐 子涵 国强 秀英 海燕""",
    "han_last": "王 李 张 刘 陈 杨 赵 黄 周 吴 徐 孙 胡 朱 高 林 何 郭 马 欧阳 上官 司马",
    "street": "Oak Elm Maple Church Station King's Queen Victoria Mill Lincoln",
    "town": "Springfield Riverton Ashford Greenville Northwood Lakeside",
    "month": """
        January February March April May June July August September October November December""",
}


@dataclass
class Note:
    """A text and the values planted in it, by kind."""

    text: str = ""
    planted: list[tuple[str, str]] = field(default_factory=list)


def digits(rng: Random, count: int) -> str:
    """So many digits."""
    return "".join(str(rng.randrange(10)) for _ in range(count))


def nhs(rng: Random) -> str:
    """An NHS number with its check digit (modulus 11)."""
    while True:
        head = digits(rng, 9)
        check = 11 - sum((10 - i) * int(d) for i, d in enumerate(head)) % 11
        if check != 10:
            whole = head + str(check % 11)
            return f"{whole[:3]} {whole[3:6]} {whole[6:]}"


def identity(rng: Random) -> str:
    """A Chinese identity number: district, birthday, serial number, check character."""
    head = rng.choice(["110105", "310104", "440303"]) + str(rng.randrange(1930, 2010))
    head += f"{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}{digits(rng, 3)}"
    return head + "10X98765432"[sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(head)) % 11]


def drawn(name: str, rng: Random, facts: dict[str, str]) -> str:
    """What stands for a field: a fact of this note, a word of WORDS, an identity or NHS number,
    `#n` digits, a number `a..b` (both may come), or one of several forms between commas.
    """
    if name in facts:
        return facts[name]
    if name in WORDS:
        return rng.choice(WORDS[name].split())
    if name in ("identity", "nhs"):
        return identity(rng) if name == "identity" else nhs(rng)
    if name.startswith("#"):
        return digits(rng, int(name[1:]))
    if ".." in name:
        low, high = map(int, name.split(".."))
        return str(rng.randrange(low, high + 1))
    return rng.choice(name.split(","))


def made(rows: tuple[tuple[str, str, str] | str, ...], rng: Random, facts: dict[str, str]) -> Note:
    """The note of a table."""

    def one(forms: str) -> str:
        several = forms.split("|")
        return several[0] if len(several) == 1 else rng.choice(several)

    note = Note()
    for row in rows:
        if isinstance(row, str):
            note.text += row
            continue
        kind, frames, values = row
        frame = one(frames)
        value = one(re.sub(r"\{(.*?)\}", lambda found: drawn(found[1], rng, facts), values))
        note.text += frame.replace("{}", value)
        note.planted.append((kind, value))
    return note


def calendar(day: int, month: int, year: int) -> dict[str, str]:
    """The fields that dates are written with."""
    name = WORDS["month"].split()[month - 1]
    return {
        "day": str(day),
        "dd": f"{day:02d}",
        "m": str(month),
        "mm": f"{month:02d}",
        "mon": name[:3],
        "month": name,
        "year": str(year),
        "yy": f"{year % 100:02d}",
    }


def english_note(rng: Random) -> Note:
    """A discharge letter in English with planted identifiers."""
    given, own, doctor = (drawn(name, rng, {}) for name in ("first", "last", "last"))
    dates = calendar(rng.randrange(1, 29), rng.randrange(1, 13), rng.randrange(1930, 2024))
    people = {"given": given, "own": own, "doctor": doctor, "mailbox": given.lower()}
    return made(ENGLISH, rng, people | dates)


def chinese_note(rng: Random) -> Note:
    """A record in Chinese with planted identifiers."""
    own, doctor = (drawn("han_last", rng, {}) + drawn("han_first", rng, {}) for _ in range(2))
    year, month, day = rng.randrange(1990, 2024), rng.randrange(1, 13), rng.randrange(1, 29)
    return made(CHINESE, rng, {"own": own, "doctor": doctor} | calendar(day, month, year))


HARD = (
    ("NAME", "mr. john kowalski came in", "kowalski"),
    ("NAME", "pt jane doe seen in clinic", "doe"),
    ("NAME", "KOWALSKI, PIOTR 45M", "KOWALSKI"),
    ("NAME", "Spoke with Piotr's GP", "Piotr"),
    ("NAME", "| Name | Piotr Kowalski |", "Kowalski"),
    ("NAME", "Name\nPiotr Kowalski\n", "Kowalski"),
    ("NAME", "PK is a 45-year-old", "PK"),
    ("NAME", "Kowalski (45M) fell", "Kowalski"),
    ("NAME", "s/b Dr Nwosu-Adeyemi", "Adeyemi"),
    ("NAME", "d/w Nwosu (cards)", "Nwosu"),
    ("NAME", "Thank you for referring Piotr Kowalski", "Kowalski"),
    ("NAME", "Mrs. Brown's husband", "Brown"),
    ("NAME", "RN Fitzgerald gave it", "Fitzgerald"),
    ("NAME", "Patient is Piotr Kowalski", "Kowalski"),
    ("NAME", "医师王建国查房后", "王建国"),
    ("NAME", "王建国 男 45岁", "王建国"),
    ("NAME", "陪同人：其妻李秀英", "李秀英"),
    ("NAME", "患者王建国昨日出院", "王建国"),
    ("NAME", "告知王建国家属病情", "王建国"),
    ("NAME", "阿依古丽·买买提，女，", "阿依古丽"),
    ("DATE", "seen 14/Mar/2019", "14/Mar"),
    ("DATE", "on the 14th of March", "14th"),
    ("DATE", "14-03-2019", "14-03"),
    ("DATE", "2019/3/14", "2019/3"),
    ("DATE", "Mar '19", "Mar"),
    ("DATE", "last Christmas Eve", "Christmas"),
    ("DATE", "20190314 10:22", "20190314"),
    ("DATE", "03-14-19", "03-14"),
    ("DATE", "14 mar 19", "14 mar"),
    ("DATE", "Tuesday the 14th", "14th"),
    ("DATE", "19年3月14日", "3月14"),
    ("DATE", "农历二月初八", "初八"),
    ("DATE", "March14, 2019", "March14"),
    ("DATE", "3/14 ultrasound was clear", "3/14"),
    ("AGE", "ninety-two year old man", "ninety-two"),
    ("AGE", "94F with cough", "94"),
    ("AGE", "九十二岁老人", "九十二"),
    ("PHONE", "617.555.0123", "555.0123"),
    ("PHONE", "phone is 555-0123", "555-0123"),
    ("PHONE", "6175550123", "6175550123"),
    ("PHONE", "mobile +4915112345678", "12345678"),
    ("PHONE", "手机138 1234 5678", "1234 5678"),
    ("PHONE", "ext 4412", "4412"),
    ("EMAIL", "jane dot doe at example dot com", "doe"),
    ("EMAIL", "jane.doe@clinic.nhs.uk", "doe"),
    ("URL", "example.org/patients/123", "123"),
    ("IP", "2001:db8:0:1:2:3:4:5", "db8"),
    ("RECORD", "MRN:\n00123456", "00123456"),
    ("RECORD", "mrn00123456", "00123456"),
    ("RECORD", "(#00123456)", "00123456"),
    ("RECORD", "住院号\nZY0012345", "ZY0012345"),
    ("RECORD", "Acc: CT-19-00345", "00345"),
    ("ID", "SSN 123 45 6788", "6788"),
    ("ID", "SSN ending 6788", "6788"),
    ("ID", "9434765919", "9434765919"),
    ("ID", "ID 11010519491231002x", "194912"),
    ("ACCOUNT", "Blue Cross W12345678", "W12345678"),
    ("ACCOUNT", "4111 1111 1111 1111", "4111"),
    ("DEVICE", "pacemaker SN PM123456", "PM123456"),
    ("DEVICE", "MAC 00:1B:44:11:3A:B7", "3A:B7"),
    ("VEHICLE", "drives a Ford, KT51 ZXC", "ZXC"),
    ("ADDRESS", "42 Wallaby Way, Sydney", "Wallaby"),
    ("ADDRESS", "Flat 3, Rose Court, Leeds", "Rose Court"),
    ("ADDRESS", "lives on Elm Street", "Elm"),
    ("ADDRESS", "江苏省南京市鼓楼区汉口路22号", "汉口路"),
    ("ADDRESS", "住南京市鼓楼区", "鼓楼区"),
    ("HOSPITAL", "transferred from MGH", "MGH"),
    ("HOSPITAL", "at Guy's", "Guy's"),
    ("HOSPITAL", "the Royal Infirmary of Edinburgh", "Edinburgh"),
    ("HOSPITAL", "南京鼓楼医院", "鼓楼"),
    ("HOSPITAL", "转自省人民医院", "省人民医院"),
    ("WARD", "on 7 West", "7 West"),
    ("POSTCODE", "near EC1A 1BB", "EC1A"),
)
"""Forms (kind, text, part of the value) written after the rules: 29 of 73 were found at first, then
the rules were widened. What is still missed stays in the list."""
