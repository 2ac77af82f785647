"""Rules for English names, hospitals, wards and addresses, each told by the words around it."""

from __future__ import annotations

import re

from medexpert.data.privacy.rules import Rule
from medexpert.data.privacy.words import GENERIC, GIVEN

_N = r"(?:(?:O['’]|Mc|Mac|D['’]|De|Di)?[A-Z][a-zà-öø-ÿ]+(?:['’-][A-Z]?[a-zà-öø-ÿ]+)*)"
_UPPER = r"(?:[A-Z]{2,}(?:['’-][A-Z]+)*)"
_INITIAL = r"(?:[A-Z]\.|[A-Z](?![\w'’-]))"
_PARTICLE = r"(?:van|von|de|der|den|la|le|bin|al|el|di|da|du|dos|ten)"
_WORD = rf"(?:{_N}|{_UPPER})"
_SPACE = r"[ \t]{1,2}"
_FULL = (  # "J. R. van der Berg", "Mary-Ann O'Neil", "JOHN SMITH"
    rf"(?:{_INITIAL}[ \t]*){{0,3}}(?:{_PARTICLE}{_SPACE}){{0,2}}{_WORD}"
    rf"(?:{_SPACE}(?:(?:{_PARTICLE}{_SPACE}){{0,2}}{_WORD}|{_INITIAL})){{0,3}}"
)
_TITLE = r"(?:Drs?|Mr|Mrs|Ms|Miss|Mx|Prof|Professor|Doctor|Nurse|Sister|Rev|Sir|Dame|Capt|Sgt)"
_REVERSED = rf"{_WORD},[ \t]{{0,2}}{_FULL}"  # "Smith, John A."
_KIN = (
    r"(?:wife|husband|daughter|son|mother|father|brother|sister|partner|friend|neighbou?r|carer|"
    r"caregiver|spouse|aunt|uncle|niece|nephew|cousin|grandmother|grandfather|grandson|"
    r"granddaughter|fiancée?|guardian|fiance|stepson|stepdaughter)"
)
_LABEL = (
    r"(?:(?:[Pp]atient|PATIENT|Pt|PT)(?:['’]s)?(?:[ \t](?:[Ff]ull[ \t])?(?:[Nn]ame|NAME))?|"
    r"(?:(?:[Ff]ull|[Ff]irst|[Ll]ast|[Gg]iven|[Ff]amily|[Mm]aiden|[Mm]iddle)[ \t])?[Nn]ame|NAME|"
    r"[Ss]urname|[Ff]orename|[Aa]ttending(?:[ \t][Pp]hysician)?|(?:[Pp]rimary[ \t]|[Cc]are[ \t])*"
    r"[Pp]hysician|[Cc]onsultant|[Ss]urgeon|[Aa]ssistant|[Pp]rovider|GP|PCP|"
    r"[Rr]eferr(?:ed|ing)(?:[ \t](?:by|[Pp]hysician|[Dd]octor))?|[Ss]een[ \t]by|"
    r"(?:[Ee]lectronically[ \t])?[Ss]igned(?:[ \t](?:electronically[ \t])?by)?|"
    r"(?:[Dd]ictated|[Rr]eviewed|[Rr]eported|[Aa]pproved|[Vv]erified|[Tt]ranscribed|[Cc]ollected|"
    r"[Pp]repared|[Ww]ritten|[Aa]uthori[sz]ed|[Pp]rescribed)[ \t]by|[Nn]ext[ \t]of[ \t][Kk]in|NOK|"
    r"(?:[Ee]mergency[ \t])?[Cc]ontact(?:[ \t][Pp]erson)?|[Aa]na?esthe(?:tist|siologist)|[Cc]c|CC|"
    r"[Rr]adiologist|[Pp]athologist|[Nn]urse|[Ii]nterpreter|[Gg]uarantor|[Ii]nsured|[Tt]herapist|"
    r"[Ww]itness|[Ss]ocial[ \t][Ww]orker|[Dd]onor|[Rr]ecipient|[Pp]harmacist|[Ww]ife|[Hh]usband|"
    r"[Mm]other|[Ff]ather|[Dd]aughter|[Ss]on|[Pp]artner|[Cc]arer)"
)
_CREDENTIAL = (
    r"(?:M\.?D\.?|D\.O\.|R\.?N\.?|MBBS|MB[ \t]?BS|MBChB|MB[ \t]?ChB|FRCP|FRCS|MRCP|MRCS|Ph\.?D\.?|"
    r"NP|PA-C|DDS|Pharm\.?D\.?|LCSW|CRNA)"
)


_NOT_AFTER = (  # what follows an eponym, an institution or a trial, not a person
    r"(?!['’]?s?[ \t-](?:[Dd]isease|[Ss]yndrome|[Ss]ign|[Tt]est|[Cc]riteria|[Ss]core|[Ss]cale|"
    r"Study|Trial|University|Foundation|Institute|Inventory|[Ii]ndex|[Cc]lassification|Research|"
    r"School|College|Library|Collaboration|Center|Centre|Questionnaire|Hospital|[Mm]ethod|"
    r"[Ff]ormula))"
)

NAMES = (
    Rule(
        "NAME",
        re.compile(
            rf"(?:^|(?<=\n)|(?<=\|))[ \t]*(?:[Pp]atient[ \t])?(?:[Ff]ull[ \t])?[Nn]ame[ \t]*"
            rf"(?:\||\n|\t)[ \t]*(?P<v>{_REVERSED}|{_FULL})"
        ),
        ("name",),
    ),
    Rule(
        "NAME",
        re.compile(
            rf"\b(?:[Pp]atient|[Nn]ame|[Pp]atient's name) is[ \t](?P<v>{_N}"
            rf"(?:[ \t]{_INITIAL})?[ \t]{_N})\b"
        ),
        (" is ",),
    ),
    Rule(
        "NAME",
        re.compile(r"\b(?:mr|mrs)\b\.?[ \t](?P<v>[a-z]{2,15}(?:[ \t][a-z]{2,15})?)\b"),
        ("mr",),
    ),
    Rule(
        "NAME",
        re.compile(
            rf"(?:\b[DdSs]/[WwBb]|\b(?:[Dd]iscussed|[Ss]poke|[Mm]et) with|\b[Ss]poke to|\b"
            rf"(?:[Ss]een|[Rr]eviewed|[Rr]eferred|[Ss]igned|[Dd]ictated) by|\b[Rr]eferring|\b(?:RN|"
            rf"CRNA|SHO|SpR))[ \t]+"
            rf"(?:{_TITLE}\.?[ \t]+)?(?P<v>{_N}(?:[ \t]{_N})?)\b{_NOT_AFTER}"
        ),
    ),
    Rule(
        "NAME",
        re.compile(
            rf"(?<![\w.-])(?P<v>{_REVERSED}|{_WORD}"
            rf"(?:[ \t]{_WORD}){{0,2}})[ \t]*[,(]?[ \t]*\d{{1,3}}(?:[MF]\b|[ -]?y/?o\b)"
        ),
    ),
    Rule("NAME", re.compile(rf"\b{_TITLE}\b\.?{_SPACE}(?P<v>{_FULL}){_NOT_AFTER}")),
    Rule(
        "NAME",
        re.compile(
            rf"(?:^|(?<=[\s|;,(/]))(?:{_LABEL})[ \t]*[:：][ \t]*(?:{_TITLE}\.?[ \t]+)?"
            rf"(?P<v>{_REVERSED}|{_FULL})",
            re.MULTILINE,
        ),
        (":", "："),
    ),
    Rule(
        "NAME",
        re.compile(
            rf"\b(?P<v>{_N}(?:{_SPACE}{_INITIAL})?(?:{_SPACE}{_N}){{1,2}}),?[ \t]{{0,2}}"
            rf"{_CREDENTIAL}(?![\w-]|[ \t]*,[ \t]*US)"
        ),
    ),
    Rule(
        "NAME",
        re.compile(
            rf"\b(?:{_KIN}|{_KIN.capitalize()})(?:,| is| was|'s name is)?{_SPACE}"
            rf"(?P<v>{_N}(?:{_SPACE}{_N})?)\b{_NOT_AFTER}"
        ),
    ),
    Rule(
        "NAME",
        re.compile(
            rf"\b(?:man|woman|boy|girl|lady|gentleman|patient|nurse|doctor|infant|{_KIN})"
            rf"(?:,)? (?:named|called|known as|by the name of){_SPACE}(?P<v>{_FULL})"
        ),
        ("named", "called", "known as", "by the name"),
    ),
    Rule(
        "NAME",
        re.compile(
            rf"\b(?:[Rr]egards|[Ss]incerely|[Ff]aithfully|[Tt]hank you|[Tt]hanks)[,.]?[ \t]*"
            rf"(?:\r?\n[ \t]*){{1,4}}(?P<v>(?:{_TITLE}\.?[ \t]+)?{_FULL})"
        ),
        ("regards", "sincerely", "faithfully", "thank"),
    ),
    Rule(
        "NAME",
        re.compile(rf"\b(?:Dear|Hi|Hello)[ \t]+(?P<v>{_N}(?:{_SPACE}{_N})?),"),
        ("dear", "hi", "hello"),
    ),
    Rule(
        "NAME",
        re.compile(
            rf"\b(?P<v>[A-Z]{{2,3}}|{_N}(?:{_SPACE}{_INITIAL})?(?:{_SPACE}{_N}){{0,2}})(?:,| is|"
            rf" was)"
            r"(?: an?)? \d{1,3}[- ]?(?:year|yr|month|week|day)s?[- ]old"
        ),
        ("old",),
    ),
    Rule(  # a lookahead, so that "Yesterday John Smith" is tried again at John
        "NAME",
        re.compile(
            rf"\b(?=(?P<v>[A-Z][a-zé]{{1,10}}(?:{_SPACE}(?:{_INITIAL}|{_N}))?"
            rf"{_SPACE}(?:{_PARTICLE}{_SPACE})?{_N})\b{_NOT_AFTER})"
        ),
        check=lambda value: value.split()[0] in GIVEN,
    ),
    Rule(
        "NAME",
        re.compile(r"(?:^|(?<=[\s,;]))(?=(?P<v>[A-Z]{3,11}(?:[ \t][A-Z]\.?)?[ \t][A-Z]{2,})\b)"),
        check=lambda value: value.split()[0].capitalize() in GIVEN,
    ),
)
"""Names after a title, a label, a kinship word, before a credential, or by a common given name."""

_PLACE = rf"(?:(?:St|Mt|Ste)\.?[ \t])?{_N}(?:['’]s)?"


PLACES = (
    Rule(
        "HOSPITAL",
        re.compile(
            rf"\b(?P<v>(?:{_PLACE}[ \t](?:(?:and|of|&)[ \t](?:the[ \t])?)?){{1,5}}"
            r"(?:Hospitals?(?! Anxiety)|Clinics?|Medical (?:Center|Centre|Group|Practice)|"
            r"Infirmary|Health (?:System|Center|Centre|Board)|Nursing Home|Care Home|Hospice|"
            r"Cancer Cent"
            r"(?:er|re)|"
            r"(?:Road|Street|Lane|House|Park|Green|Village) Surgery|Eye Institute|Urgent Care|"
            r"Rehabilitation Cent(?:er|re)|NHS (?:Foundation )?Trust)"
            rf"(?:[ \t](?:of|at)[ \t]{_N}(?:[ \t]{_N})?)?)\b"
        ),
        (
            "hospital",
            "clinic",
            "medical",
            "infirmary",
            "hospice",
            "health",
            "home",
            "surgery",
            "cancer",
            "institute",
            "urgent",
            "rehab",
            "nhs",
        ),
        lambda value: any(word.lower() not in GENERIC for word in re.findall(r"[^\W\d_]+", value)),
    ),
    Rule(
        "HOSPITAL",
        re.compile(
            rf"\b(?P<v>(?:Hospital|Clinic|Infirmary) (?:of|at) (?:the )?{_N}(?:[ \t]{_N}){{0,2}})\b"
        ),
        ("hospital", "clinic", "infirmary"),
    ),
    Rule(
        "WARD",
        re.compile(
            r"\b(?P<v>(?:[Ww]ard|WARD|[Rr]oom|ROOM|Rm|[Bb]ed|BED|[Bb]ay)[ \t]*(?:[Nn]o\.?|#)?[ \t]?"
            r"(?:[A-Z]{0,2}\d{1,4}[A-Za-z]?(?:-\d{1,3})?|[A-Z]\d?)|(?:[A-Z][a-z]+[ \t]){1,2}Ward)"
            r"(?![\w%.]\w|\w)"
        ),
        ("ward", "room", "rm", "bed", "bay"),
    ),
    Rule(
        "ADDRESS",
        re.compile(
            rf"(?<![\w.,/-])(?P<v>(?:(?:Flat|Apt\.?|Apartment|Suite|Unit|"
            rf"No\.?)[ \t]#?\w{{1,5}},?[ \t])?"
            rf"\d{{1,5}}[A-Za-z]?(?:[-/]\d{{1,4}})?,?[ \t](?:(?:N|S|E|W|NE|NW|SE|SW|North|South|"
            rf"East|West)\.?[ \t])?"
            rf"(?:(?:\d{{1,3}}(?:st|nd|rd|th)|(?:St\.?[ \t])?{_N}(?:['’]s)?)[ \t]){{1,4}}"
            r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Close|Way|"
            r"Crescent|Place|Pl|Square|Sq|Terrace|Gardens|Grove|Highway|Hwy|Parkway|Pkwy|Circle|"
            r"Cir|Trail|Row|Mews|Hill|Park|Walk|Green|Quay|Broadway)\b\.?"
            r"(?:,?[ \t](?:Apt\.?|Apartment|Suite|Ste|Unit|Flat|#)[ \t]?#?\w{1,5}\b)?"
            rf"(?:,[ \t]*{_N}(?:[ \t]{_N}){{0,2}}){{0,2}}"
            r"(?:,?[ \t]*[A-Z]{2}[ \t]+\d{5}(?:-\d{4})?)?)"
        ),
    ),
    Rule(
        "ADDRESS",
        re.compile(
            rf"\b(?:lives|living|resides|lived) (?:on|at|in) (?P<v>(?:{_N}[ \t]){{1,3}}"
            r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Drive|Court|Close|Way|Crescent|Place|Square|"
            r"Terrace))\b"
        ),
        ("liv", "resid"),
    ),
    Rule(
        "ADDRESS",
        re.compile(r"\b(?P<v>P\.?[ \t]?O\.?[ \t]?Box[ \t]*\d{1,7})\b", re.IGNORECASE),
        ("box",),
    ),
    Rule(
        "ADDRESS",
        re.compile(
            r"(?i:\b(?:home |mailing |postal |street |current )?address(?: is)?)[ \t]*[:：][ \t]*"
            r"(?P<v>(?![ \t])[^\n;|]{4,100}?)(?=[ \t]*(?:[\n;|]|$|\.[ \t]|(?:Tel|Phone|Email|"
            r"DOB)\b))"
        ),
        ("address",),
    ),
    Rule(
        "ADDRESS",
        re.compile(
            rf"\b(?P<v>{_N}(?:[ \t]{_N}){{0,2}},?[ \t]+(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|"
            rf"K[SY]|LA|"
            r"M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]),?[ \t]+\d{5}"
            r"(?:-\d{4})?)(?!\d)"
        ),
    ),
    Rule(
        "POSTCODE",
        re.compile(
            r"(?<![A-Za-z0-9-])(?:A[BL]|B[ABDHLNRST]?|C[ABFHMORTVW]|D[ADEGHLNTY]|E[CHNX]?|F[KY]|"
            r"G[LUY]?|H[ADGPRSUX]|I[GMPV]|JE|K[ATWY]|L[ADELNSU]?|M[EKL]?|N[EGNPRW]?|O[LX]|"
            r"P[AEHLOR]|R[GHM]|S[AEGKLMNOPRSTWY]?|T[ADFNQRSW]|UB|W[ACDFNRSV]?|YO|"
            r"ZE)[0-9][0-9A-HJKMNP-Y]? "
            r"[0-9][ABD-HJLNP-UW-Z]{2}(?![A-Za-z0-9-])"
        ),
    ),
    Rule(
        "LOCATION",
        re.compile(
            r"\b(?:[Ll]ives|[Ll]iving|[Ll]ived|[Rr]esides|[Rr]esiding|[Rr]esident|[Bb]orn|"
            r"[Gg]rew up|[Mm]oved|[Rr]elocated|[Ww]orks|[Ww]orked)"
            rf" (?:alone |with [a-z]+ [a-z]+ )?(?:in|at|of|to|from|near)(?: the (?:town|city|"
            rf"village) of)? (?P<v>{_N}(?:[ \t]{_N}){{0,2}}"
            rf"(?:, (?:{_N}(?:[ \t]{_N})?|[A-Z]{{2}})\b)?)"
        ),
        ("liv", "resid", "born", "grew", "moved", "relocated", "work"),
    ),
)
"""Hospitals, wards, addresses and home places."""
