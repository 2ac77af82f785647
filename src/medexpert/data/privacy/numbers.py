"""Rules for dates, ages and identifying numbers, English labels and Chinese ones.

A number counts as an identifier by its own form (a check digit, a date that exists) or by the label
before it ("MRN:", "住院号："), so that doses, laboratory values and p-values are left alone.
"""

from __future__ import annotations

import re

from medexpert.data.privacy.rules import (
    Rule,
    chinese_id,
    digits_of,
    has_digits,
    luhn,
    month_day,
    numeric_date,
    vehicle_number,
)

_MONTHS = (
    "January|February|March|April|May|June|July|August|September|October|November|December|"
    "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec"
)
_MONTH = f"(?:{_MONTHS}|{_MONTHS.upper()})"
_WORDS = tuple(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:18|19|20)\d\d"
_UNIT = (  # after "May 10" these make the number a count or a dose
    r"(?!\d|[:.,]\d|[-–/]\d|\s*[%‰×]|\s*(?:mg|mcg|µg|g|kg|ml|mL|mm|cm|patients?|subjects?|cases?|"
    r"women|men|children|participants?|weeks?|days?|months?|years?|hours?|of|out)\b)"
)
_CN = "[一二三四五六七八九十]"

DATES = (
    Rule(
        "DATE",
        re.compile(
            rf"(?<![\d./-]){_DAY}(?:st|nd|rd|th)?(?:\s+of)?[ \t/-]{{1,2}}(?:{_MONTH}\b\.?"
            rf"(?:,?[ \t/-]{{1,2}}(?:{_YEAR}|'?\d\d(?![\d%.])))?|(?i:{_MONTHS})\b[ \t-](?:{_YEAR}|"
            rf"\d\d(?![\d%.])))(?!\d)"
        ),
        _WORDS,
    ),
    Rule(
        "DATE",
        re.compile(
            rf"\b{_MONTH}\.?[ \t-]{{1,2}}{_DAY}(?:(?:st|nd|rd|th)?,?[ \t-]{{1,2}}{_YEAR}(?!\d)"
            rf"|(?:st|nd|rd|th)\b|{_UNIT})"
        ),
        _WORDS,
    ),
    Rule(
        "DATE",
        re.compile(
            rf"\b{_MONTH}\.?(?:,?(?: of)?[ \t-]{{1,2}}(?:{_YEAR}|['’]\d\d)|{_DAY},[ \t]?{_YEAR})"
            rf"(?!\d)"
        ),
        _WORDS,
    ),
    Rule(
        "DATE",
        re.compile(
            rf"(?<![\d/.\-])(?<![\d][eE])(?:{_YEAR}(?P<s>[/.\-])\d{{1,2}}(?P=s)\d{{1,2}}"
            rf"|\d{{1,2}}(?P<t>[/.\-])\d{{1,2}}(?P=t){_YEAR}|\d{{1,2}}/\d{{1,2}}/\d\d)"
            r"(?![\d/-]|\.\d)"
        ),
        check=numeric_date,
    ),
    Rule(
        "DATE",
        re.compile(
            r"(?i:\b(?:d\.?o\.?b\.?|date(?: of [a-z]+)?|seen|admitted|discharged|dated|born|died|"
            r"deceased|appointment|surgery)(?: on)?)[ \t]*[:：]?[ \t]*"
            r"(?P<v>\d{1,2}[/.\-]\d{1,2}[/.\-]\d\d)(?![\d/-])"
        ),
        check=numeric_date,
    ),
    Rule(
        "DATE",
        re.compile(
            r"(?i:\b(?:d\.?o\.?b\.?|date(?: of [a-z]+)?|seen|admitted|discharged|dated|born|died|"
            r"deceased|appointment|surgery)(?: on)?)[ \t]*[:：]?[ \t]*"
            r"(?P<v>\d{1,2}/\d{1,2})(?![\d/]|\.\d|[ \t]*(?:mg|ml|tab))"
        ),
        check=month_day,
    ),
    Rule(
        "DATE",
        re.compile(rf"(?<![\w.]){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?![\w]|\.\d)"),
    ),
    Rule(
        "DATE",
        re.compile(rf"(?<![\d.,/-])\d\d-\d\d-\d\d{_UNIT}"),
        check=numeric_date,
    ),
    Rule(
        "DATE",
        re.compile(
            r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day,?(?: the)? \d{1,2}(?:st|nd|rd|th)\b"
        ),
        ("day",),
    ),
    Rule(
        "DATE",
        re.compile(
            rf"(?:(?<!\d){_YEAR}|[〇○零一二三四五六七八九]{{4}})[ \t]*年[ \t]*(?:1[0-2]|0?[1-9]|"
            rf"{_CN}{{1,2}})"
            rf"[ \t]*月(?:[ \t]*(?:{_DAY}|{_CN}{{1,3}})[ \t]*[日号])?"
        ),
        ("年",),
    ),
    Rule(
        "DATE",
        re.compile(
            rf"(?<![\d.一二三四五六七八九十])(?:1[0-2]|0?[1-9]|{_CN}{{1,2}})[ \t]*月[ \t]*"
            rf"(?:{_DAY}|{_CN}{{1,3}})[ \t]*[日号]"
        ),
        ("月",),
    ),
)
"""Dates more exact than a year. A year alone stays, as HIPAA's safe harbour allows."""

_OLD = r"(?:9\d|1[0-2]\d)"
_OPEN = r"(?<![\d.,≥>≤<=~～\-–—至])(?<![≥>≤<=] )(?<!than )(?<!to )(?<!and )(?<!over )(?<!above )"
AGES = (
    Rule(
        "AGE",
        re.compile(
            r"\b(?P<v>(?i:ninety(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?|(?:one|"
            r"a) hundred"
            r"(?: and [a-z]+)?)(?=[ -]years?[ -]old)|(?:9\d|10\d)(?=[MF]\b(?![-/]))|"
            r"九十[一二三四五六七八九]?(?=岁))"
        ),
    ),
    Rule(
        "AGE",
        re.compile(
            rf"{_OPEN}(?P<v>{_OLD})(?=[ -]?(?:(?:years?|yrs?)[ -](?:old|of age)\b|y/?o\b|yo\b))"
            r"(?![ -](?:years?|yrs?)[ -](?:old|of age) (?:and|or) (?:older|over|above))"
        ),
        ("old", "of age", "yo", "y/o"),
    ),
    Rule(
        "AGE",
        re.compile(
            rf"\b(?i:aged?|age is|age of|turned)[ \t]*:?[ \t]*(?P<v>{_OLD})(?![\d.%]|[ \t]*[-–—~±/]"
            r"|[ \t]*(?:y(?:ea)?rs?)?[ \t]*(?:to|and|or|mg|patients|%)\b)"
        ),
        ("age", "turned"),
    ),
    Rule(
        "AGE",
        re.compile(
            rf"(?<![\d.≥>≤<~～\-–—至])(?P<v>{_OLD}|九十[一二三四五六七八九]?|"
            rf"一?百[零一二三四五六七八九十]{{0,3}})"
            r"[ \t]*周?岁(?!以上|及以上|以下|或)"
        ),
        ("岁",),
    ),
)
"""Ages of 90 and more, which HIPAA's safe harbour counts; a criterion such as "> 90" does not."""

_MEASURE = re.compile(r"\d{1,4}\.\d+")  # 0.328 is a measurement, whatever stands before it
_VALUE = r"(?P<v>[A-Za-z0-9][A-Za-z0-9/_.\-]{2,29}(?<![.\-/_]))"
_SIGN = r"[ \t]*(?:[:：#=]|№|is\b|was\b|ending in\b|ending\b)*[ \t]*#?[ \t]*\n?"
_NUMBER = r"[ \t]*(?:no\b\.?|nos\b\.?|number\b|num\b\.?|nr\b\.?|id\b|identifier\b|code\b|#|[:：])"


_WORD_NUMBER = _NUMBER.replace("|[:：]", "")


def _labelled(
    kind: str, labels: str, *, bare: bool = False, word: bool = False, needs: str, least: int = 3
) -> Rule:
    """`labels`, a sign for "number" (optional when `bare`, no colon when `word`), then a value."""
    number = f"(?:{_NUMBER})?" if bare else _WORD_NUMBER if word else f"(?:{_NUMBER})"
    return Rule(
        kind,
        re.compile(rf"(?i:(?<![A-Za-z])(?:{labels})(?![A-Za-z]){number}{_SIGN}){_VALUE}"),
        tuple(needs.split("|")),
        lambda value: len(digits_of(value)) >= least and not _MEASURE.fullmatch(value),
    )


LABELLED = (
    _labelled(
        "RECORD",
        r"mrn|medical record|csn|urn|m\.r\.n\.",
        bare=True,
        needs="mr|medical record|csn|urn",
    ),
    _labelled(
        "RECORD",
        r"hospital|patient|pt|chart|case|unit|record|encounter|episode|visit|specimen|lab|"
        r"accession|acc|requisition|order|study id|file",
        needs="no|number|num|nr|id|#|:|：",
        least=4,
    ),
    _labelled(
        "ID",
        r"ssn|social security|nhs|medicare|medicaid|national id|passport",
        bare=True,
        needs="ssn|social|nhs|medica|national id|passport",
        least=4,
    ),
    _labelled(
        "ACCOUNT",
        r"account|acct|policy|member|membership|subscriber|beneficiary|insurance|health plan|"
        r"certificate|licen[cs]e|driver'?s licen[cs]e|driving licen[cs]e|dea|npi|gmc|"
        r"iban|sort code|wechat|skype",
        needs="no|number|num|nr|id|#|:|：",
        least=4,
    ),
    _labelled(
        "ACCOUNT",
        "blue cross|blue shield|bcbs|aetna|cigna|humana|kaiser|united ?healthcare|bupa|tricare",
        bare=True,
        needs="blue|bcbs|aetna|cigna|humana|kaiser|united|bupa|tricare",
        least=5,
    ),
    Rule("RECORD", re.compile(r"(?<![\w&])#\d{6,12}\b"), ("#",)),
    _labelled("ACCOUNT", "plan|group|claim", word=True, needs="plan|group|claim", least=4),
    _labelled(
        "DEVICE",
        "serial|s/n|device|implant|pacemaker|generator|lead|pump|udi|lot",
        word=True,
        needs="serial|s/n|device|implant|pacemaker|generator|lead|pump|udi|lot",
    ),
    _labelled(
        "DEVICE",
        r"serial number|serial no\.?|imei|s/n|sn",
        bare=True,
        needs="serial|imei|s/n|sn",
        least=4,
    ),
    Rule(
        "VEHICLE",
        re.compile(
            r"(?i:\b(?:(?:licen[cs]e|number|car|vehicle)[ -](?:plates?|registration|reg\.?)|plate|"
            rf"vehicle reg(?:istration)?)(?:{_NUMBER})?{_SIGN})"
            r"(?P<v>[A-Z0-9]{1,4}[- ]?[A-Z0-9]{2,5}(?:[- ][A-Z0-9]{2,4})?)\b"
        ),
        ("plate", "vehicle", "car reg"),
        has_digits(1),
    ),
    Rule("VEHICLE", re.compile(r"\b[A-HJ-NPR-Z0-9]{17}\b"), check=vehicle_number),
    Rule(
        "DEVICE",
        re.compile(
            r"(?<![0-9A-Fa-f:-])(?:[0-9A-Fa-f]{2}(?P<s>[:-]))(?:[0-9A-Fa-f]{2}(?P=s)){4}"
            r"[0-9A-Fa-f]{2}(?![0-9A-Fa-f:-])"
        ),
    ),
    Rule("ID", re.compile(r"(?<![A-Za-z0-9])\d{17}[\dXx](?![A-Za-z0-9])"), check=chinese_id),
    Rule(
        "ACCOUNT",
        re.compile(r"(?<![\w.])\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{3,7}(?![\w.])"),
        check=lambda value: luhn(value) and len(set(value)) > 2,
    ),
    Rule(
        "POSTCODE",
        re.compile(
            r"(?i:\b(?:zip|postal|post)[ -]?codes?|\bzip)[ \t]*[:#：]?[ \t]*"
            r"(?P<v>\d{5}(?:-\d{4})?|\d{6}|[A-Za-z]{1,2}\d[A-Za-z\d]? ?\d[A-Za-z]{2})\b"
        ),
        ("zip", "post"),
    ),
    Rule(
        "PHONE",
        re.compile(
            r"(?i:\b(?:tel|telephone|phone|mobile|cell|cellphone|fax|contact)"
            r"(?:[ \t]*(?:no|number|num|#))?)\.?[ \t]*(?:[:：#]|is\b|was\b)?[ \t]*"
            r"(?P<v>\+?\(?\d[\d ().\-]{5,18}\d)(?!\d)"
        ),
        ("tel", "phone", "mobile", "cell", "fax", "contact"),
        has_digits(7),
    ),
    Rule(
        "PHONE",
        re.compile(
            r"(?i:\b(?:pager|bleep|beeper|ext|extn|extension (?:no|number))"
            r"\.?[ \t]*[:#]?[ \t]*)(?P<v>\d{3,6})\b(?!\s*(?:mg|ml|°|degrees))"
        ),
        ("pager", "bleep", "beeper", "ext"),
    ),
)
"""Identifiers told by a label or a check digit."""

_ZH_SIGN = r"[ \t]*(?:为|是)?[ \t]*[:：]?\s{0,2}"
_ZH_VALUE = r"(?P<v>[A-Za-z0-9][A-Za-z0-9\-]{2,29})"


def _chinese(kind: str, labels: str, needs: str, least: int = 3) -> Rule:
    return Rule(
        kind,
        re.compile(f"(?:{labels}){_ZH_SIGN}{_ZH_VALUE}"),
        tuple(needs.split("|")),
        has_digits(least),
    )


CHINESE_LABELLED = (
    _chinese(
        "RECORD",
        "(?:病历|病案|住院|门诊|急诊|就诊|就诊卡|登记|检查|检验|标本|影像|病理|条码|患者|医嘱|"
        "申请单|超声|放射)(?:编号|号码?|ID)",
        "号|id",
    ),
    _chinese("ID", "(?:身份证|护照|军官证|军人证|港澳通行证|证件)(?:编号|号码?)?", "证|护照"),
    _chinese(
        "ACCOUNT",
        "(?:医保|医保卡|社保|社保卡|保险|保单|银行卡|账户|账|帐|银行账|会员|驾驶证|驾照|执业证书?|"
        "资格证书?|微信|QQ|qq)"
        "(?:编号|号码?|ID)?",
        "保|账|帐|卡|证|驾|会员|微信|qq",
        4,
    ),
    _chinese("DEVICE", "(?:序列|设备|仪器|植入物|起搏器|产品|出厂)(?:编号|号码?|序列号)", "号"),
    _chinese(
        "PHONE",
        "(?:电话|手机|联系方式|传真|座机|分机)(?:号码?)?",
        "电话|手机|联系方式|传真|座机|分机",
    ),
    _chinese("POSTCODE", "邮(?:政)?编(?:码)?", "编"),
    Rule(
        "PHONE",
        re.compile(
            r"(?<![A-Za-z\d.])(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?![A-Za-z\d]|\.\d)"
        ),
    ),
    Rule(
        "PHONE", re.compile(r"(?<![A-Za-z\d.-])0[1-9]\d{1,2}[-—]\d{7,8}(?:[-转]\d{1,6})?(?![\d-])")
    ),
    Rule(
        "VEHICLE",
        re.compile(
            "[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z][·• ]?"
            "[A-HJ-NP-Z0-9]{4,5}[A-HJ-NP-Z0-9挂学警港澳](?![A-Za-z0-9])"
        ),
        check=has_digits(2),
    ),
)
"""The same for Chinese labels, mobile and landline numbers, and vehicle plates."""
