"""Sentences of a medical conversation that say nothing medical, by kind, English and Chinese.

A pattern has to match a whole sentence (or the salutation that opens a turn), so that no medical
word can be lost with it. Each is written for phrases common on consultation sites.
"""

from __future__ import annotations

import re

_SITES = (
    r"(?:health\s?care\s?magic|hcm|icliniq|i\s?cliniq|chat\s?doctor|just\s?answer|ehealth\s?forum)"
)
_DOCTOR = r"(?:dr\.?|doctor|doc|prof\.?)(?:\s+(?-i:[A-Z])[\w.'-]*){0,3}"
_MARK = r"[\s,.!:;~-]*"

# What may open a turn and be followed by its content: "Hi doctor, ", "您好，".
SALUTATION = re.compile(
    r"\s*(?:"
    r"(?i:(?:hi|hello|hey|hiya|greetings|namaste|good\s+(?:morning|afternoon|evening|day)|dear)"
    r"(?:\s+(?:there|again|dear|doctors?|doc|sir|madam|ma'?am|friend|user|patient|all|everyone|team))*)"
    r"(?:\s+(?i:dr|doctor|mr|mrs|ms)\.?\s+[A-Z][\w'-]*)?(?:\s*[,!.:]+\s+|\s*[,!.:]*\s*$)"
    r"|(?:医生|大夫|专家|主任)?[，,\s]*(?:您|你)好(?:啊|呀)?(?:[，,\s]*(?:医生|大夫|专家|亲|朋友|患者|家长))?"
    r"(?:\s*[，,！!。.：:~～、；;]+\s*|\s+|$)"
    r"|(?:不用|不必)?(?:不)?客气(?:了|的)?\s*(?:[，,！!。.~～]+\s*|$)"
    r")"
)
# Headings of Chinese answers, behind which a salutation may stand.
HEADING = re.compile(r"\s*(?:病情分析|问题分析|指导意见|意见建议|治疗建议|建议)[：:]\s*")

_REACH = (
    " 您 你 都 也 请 欢迎 随时 可以 可 再次 继续 再 在 及时"
    " 向 与 跟 和 给 来 我 我们 医生 咨询 提问 联系 告诉 追问"
    " 留言 询问 交流 沟通 提出 这里 哦 的 为 解答 平台 线上 进行"
)


def _run(words: str) -> str:
    """Any number of these words, longest first, without going back: time linear in the text."""
    ordered = sorted(words.split(), key=len, reverse=True)
    return "(?:" + "|".join(map(re.escape, ordered)) + ")*+"


_PATTERNS: tuple[tuple[str, str], ...] = (
    # -- English
    (
        "greeting",
        r"(?:(?:hi|hello|dear)\b[\w\s,]{0,25})?(?:and\s+)?(?:a\s+)?(?:warm\s+)?welcome(?:\s+back)?"
        rf"\s+to\s+(?:the\s+)?(?:{_SITES}|our\s+(?:site|forum|community|platform|service))"
        r"(?:[\s.]*com)?",
    ),
    (
        "thanks",
        r"(?:ok(?:ay)?,?\s+|and\s+)?(?:many\s+|a\s+lot\s+of\s+)?(?:thanks?|thank\s*you|thanx|thx)"
        r"(?:\s+(?:you|so|very|much|a\s+lot|again|once|and|in\s+advance|dear|doctor|doc|dr|sir|madam|"
        r"regards))*(?:\s+for\s+(?:your|the|posting|writing|asking|contacting|choosing|using|"
        r"consulting|trusting|sharing|reaching|providing|this|all)"
        r"(?:\s+(?:your|a|an|the|us|me|to|out|in|on|at|with|and|of|this|our|query|queries|questions?|"
        r"concerns?|details?|information|help|advice|time|reply|replies|answers?|response|support|"
        r"posting|writing|asking|consulting|contacting|trust|problem|health|here|kind|prompt|quick|"
        rf"valuable|medical|{_SITES})\b)*+)?",
    ),
    (
        "boilerplate",
        r"(?:i\s+(?:have\s+|had\s+|'ve\s+)?(?:just\s+)?(?:gone\s+through|read|reviewed|understood|"
        r"went\s+through|carefully\s+read)|i\s+(?:can\s+|do\s+|completely\s+|fully\s+)?understand|"
        r"i\s+appreciate)\s+(?:all\s+|all\s+of\s+)?(?:your|the)\s+"
        r"(?:query|queries|questions?|concerns?|message|anxiety|worry|worries|mail|post|problem)"
        r"(?:\s+(?:in\s+detail|carefully|thoroughly|completely|very\s+well|well))?"
        r"(?:\s+and\s+(?:i\s+)?(?:can\s+)?(?:understand|understood|appreciate)\s+your\s+"
        r"(?:concerns?|worry|anxiety|problem))?",
    ),
    (
        "introduction",
        rf"(?:my\s+name\s+is|i\s+am|i'm|this\s+is)\s+(?:{_SITES}|dr\.?\s+(?-i:[A-Z])[\w.'-]*"
        r"(?:\s+(?-i:[A-Z])[\w.'-]*){0,2})(?:,?\s+(?:and\s+)?i(?:\s+will|'ll|\s+am|'m|\s+would)\b"
        r"[\w\s']{0,20}\b(?:answer|help|assist|look\s+into|attend|answering|helping|assisting)"
        r"(?:ing)?(?:\s+(?:you|your|to|with|the|query|question|concerns?|problem|today|here|in)\b)*+)?",
    ),
    (
        "closing",
        r"(?:i\s+|we\s+)?(?:really\s+|do\s+)?hope\s+(?:that\s+)?(?:this|i|it|my|the\s+above|these|you\s+"
        r"find\s+(?:this|my))\b(?:\s+(?:have|has|was|were|will|would|could|can|be|been|is|my|the|answer|"
        r"answers|answered|information|advice|reply|suggestions?|above|helps?|helped|helping|helpful|"
        r"useful|of|some|help|to|you|your|query|queries|questions?|concerns?|clear|clears|cleared|"
        r"clarifies|clarified|doubts?|satisfied|satisfies|for|and|all|with|resolve[sd]?|use|able|"
        r"provide[sd]?)\b)*+",
    ),
    (
        "closing",
        r"(?:please\s+|kindly\s+|you\s+can\s+|and\s+|do\s+|just\s+)*(?:feel\s+free\s+to|let\s+me\s+know|"
        r"write\s+(?:back\s+)?to\s+(?:me|us)|get\s+back\s+to\s+(?:me|us)|revert\s+back|do\s+not\s+"
        r"hesitate\s+to|don'?t\s+hesitate\s+to|contact\s+(?:me|us)|ask\s+me|i\s+(?:will|would|'ll)\s+be\s+"
        r"(?:happy|glad)\s+to\s+(?:help|answer|assist))"
        r"(?:\s+(?:ask|contact|write|back|to|me|us|know|if|in|case|you|have|there|are|is|any|some|more|"
        r"further|other|additional|of|questions?|query|queries|doubts?|clarifications?|concerns?|need|"
        r"help|assistance|assist|for|at|anytime|any\s+time|again|here|with|and|i|will|be|happy|glad|"
        r"answer|them|your|should|additional|regarding|this|on)\b)*+",
    ),
    (
        "closing",
        r"(?:if|in\s+case|should)\s+(?:you\s+(?:still\s+)?have\s+)?(?:any|further|more|other|additional)"
        r"(?:\s+(?:any|further|more|other|additional|questions?|query|queries|doubts?|concerns?|"
        r"clarifications?|i|will|would|am|be|happy|glad|to|help|answer|you|them|please|feel|free|ask|"
        r"contact|me|us|write|let|know|then|and|here|do|not|hesitate)\b)*+",
    ),
    (
        "closing",
        r"(?:(?:with\s+)?(?:(?:kind|best|warm|warmest|good)\s+)*(?:regards?|wishes)|take\s+(?:good\s+)?"
        r"care(?:\s+of\s+yourself)?|good\s+luck(?:\s+to\s+you)?|all\s+the\s+best|get\s+well\s+soon|"
        r"feel\s+better\s+soon|sincerely(?:\s+yours)?|yours\s+(?:sincerely|truly)|cheers|"
        r"(?:i\s+)?wish(?:ing)?\s+you(?:\s+(?:and|your|family|a|an|the|all|good|great|best|of|speedy|"
        r"quick|fast|early|healthy|health|luck|recovery|day|life|very|well|happy|long)\b)*+"
        r"(?:\s+thanks)?|have\s+a\s+(?:nice|good|great|healthy|lovely)\s+(?:day|time|life|weekend))"
        rf"(?:[\s,.-]+{_DOCTOR}(?:,?\s+(?:mbbs|md|ms|dnb|mrcp|phd|bds)\.?)*)?",
    ),
    (
        "signature",
        rf"(?:-+\s*|yours\s+)?(?:{_DOCTOR}|{_SITES})(?:,?\s+(?:mbbs|md|ms|dnb|mrcp|bds)\.?)*",
    ),
    (
        "advertising",
        r"(?:(?:for|to)\s+[\w\s,'-]{1,60}?\s+)?(?:please\s+)?(?:consult|ask|talk\s+to|revert(?:\s+back)?\s+"
        r"(?:to|with))\s+[\w\s,/()'-]{2,60}?\s*(?:online)?\s*[\w\s]{0,30}-+>\s*(?:<link>|https?://\S*)?",
    ),
    ("advertising", r"-+>\s*(?:<link>|https?://\S*)?"),
    (
        "advertising",
        r"(?:please\s+)?(?:rate|accept|like|upvote|mark)\s+(?:my|this|the)\s+answer[\w\s,]{0,40}",
    ),
    (
        "advertising",
        r"(?:please\s+)?(?:visit|call|contact|follow|whatsapp|subscribe\s+to|download)\s+"
        r"(?:us|our|my)\b[\w\s,:/.@+()-]{0,80}",
    ),
    # -- Chinese
    (
        "thanks",
        r"(?:好的|嗯|哦|那|那就|好|明白了|知道了|我知道了|我明白了|了解了)?[，,、\s]*(?:非常|十分|太|真的)?"
        r"(?:很)?(?:感谢|谢谢|多谢|谢)"
        + _run(
            " 了 啦 您 你 医生 大夫 专家 各位 大家 的 对 我"
            " 我们 平台 咨询 提问 信任 建议 解答 回答 回复 答复 帮助 指导 支持"
            " 理解 关注 使用 来信 耐心 详细 解释 关心 宝贵 意见 讲解 分享 提醒 鼓励"
        ),
    ),
    (
        "greeting",
        r"(?:很高兴|非常高兴)(?:能)?(?:为|给|回答|帮助|解答)(?:您|你)?"
        + _run("解答 服务 的 问题 回答 提供 帮助 疑问")
        + r"|(?:请问)?(?:您有|你有|有)?什么(?:可以|能)(?:帮到|帮助|帮)"
        r"(?:您|你)(?:的)?(?:吗|呢|么)?",
    ),
    (
        "closing",
        r"(?:最后)?[，,\s]*祝"
        + _run(
            " 愿 福 您 你 患者 病人 宝宝 孩子 大家 小朋友 老人"
            " 家人 老人家 您的 你的 和 及 与 早日 身体 健康 康复 恢复"
            " 生活 愉快 快乐 平安 幸福 顺利 好运 一切 工作 学习 开心"
            " 安康 早 日 好 病 尽快 永远 天天 阖家 痊愈 美满"
            " 安好 手术 成功 如意 好孕 、 ， , 母亲 父亲 妈妈 爸爸 朋友 亲"
        ),
    ),
    (
        "closing",
        r"(?:希望|但愿)"
        + _run(
            " 我的 我 以上 上述 这些 这个 本次 能 能够 可以 您 你 对"
            " 的 回答 解答 建议 回复 答复 意见 内容 信息 会 给 为 有"
            " 所 帮到 帮助 帮 到 用 满意 解决 问题 疑问 作用 些 一些 一定 ， ,"
        ),
    ),
    (
        "closing",
        r"以上(?:就是|是|为|仅)?(?:我)?(?:对于|对|针对|给|关于)?[^。！!？?\d]{0,30}?(?:这个)?(?:问题)?"
        r"的(?:建议|回答|解答|意见)[，,](?:希望|祝)[^。！!\d]{0,25}",
    ),
    (
        "closing",
        r"(?:如果|如|若|假如|倘若)?(?:您|你)?(?:还)?有"
        + _run(
            " 任何 其他 其它 什么 别的 更多 不明白 不清楚 进一步 疑问"
            " 问题 的 需要 疑虑 地方 或 或者 和 需求 咨询"
        ).replace("*+", "++")
        + r"[，,\s]*"
        + _run(_REACH),
    ),
    (
        "closing",
        r"(?:请|欢迎|可以|您可以|你可以)?(?:您|你)?随时" + _run(_REACH).replace("*+", "++"),
    ),
    (
        "advertising",
        r"[^。！!？?]{0,20}(?:关注|搜索|扫描|添加|加)[^。！!？?\d]{0,12}"
        r"(?:公众号|微信号?|二维码|微博|ＱＱ|QQ群?)[^。！!？?]{0,30}",
    ),
    (
        "advertising",
        r"[^。！!？?]{0,12}(?:咨询|预约|联系|服务|拨打|免费|健康)(?:电话|热线|微信|QQ|手机)(?:号码?)?"
        r"[为是：:\s]*[\d\w-]{7,}[^。！!？?]{0,15}",
    ),
    (
        "advertising",
        r"[^。！!？?]{0,10}点击[^。！!？?]{0,12}(?:链接|在线咨询|预约|咨询)[^。！!？?]{0,15}",
    ),
)
WHOLE = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS)

# What only acknowledges: it goes when nothing else is left of a turn, and stays otherwise.
ACKNOWLEDGED = re.compile(
    r"(?:ok(?:ay)?|alright|all\s+right|great|i\s+see|got\s+it|understood|sure|you(?:'re|\s+are)\s+welcome|"
    r"no\s+problem|my\s+pleasure|bye|goodbye|"
    r"(?:好|好的|好吧|嗯|嗯嗯|哦|行|是的|可以|明白|明白了|我明白了|知道了|我知道了|了解了|我了解了|再见|不用谢|没关系)"
    r"(?:[，,](?:好的|明白了|我明白了|知道了|我知道了|了解了|我了解了|我会注意的?|我会的|谢谢))*|我会注意的|我会的)",
    re.IGNORECASE,
)
EDGES = " \t\r\n\u3000,.!?;:~-…，。！？；：～、"
