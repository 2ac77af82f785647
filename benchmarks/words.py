"""The word lists and sentence patterns of the generated corpus: all our own, drugs invented."""

from __future__ import annotations

_ENGLISH = {
    "disease": """
        asthma sepsis gout psoriasis migraine cirrhosis epilepsy anaemia pneumonia lymphoma
        osteoporosis hypertension endometriosis glaucoma sarcoidosis pancreatitis cholangitis
        myocarditis neuropathy nephritis vasculitis hepatitis bronchiectasis thrombosis dementia
        delirium obesity eczema diverticulitis meningitis endocarditis hypothyroidism scleroderma
        melanoma leukaemia prostatitis tonsillitis appendicitis cellulitis osteomyelitis
    """,
    "group": """
        adults children neonates outpatients inpatients smokers athletes veterans women men nurses
        carers adolescents survivors recipients donors volunteers toddlers pensioners commuters
        residents students migrants farmers miners
    """,
    "outcome": """
        mortality pain fatigue readmission relapse bleeding infection fracture sleep mobility
        adherence weight continence nausea breathlessness recovery remission survival disability
        cognition balance appetite oedema jaundice fever
    """,
    "verb": """
        reduced increased delayed predicted worsened preceded shortened prolonged modified masked
        doubled halved prevented provoked mirrored reversed accompanied outlasted stabilised
        unmasked
    """,
    "adj": """
        severe mild chronic acute refractory recurrent early late nocturnal seasonal bilateral
        focal diffuse occult stable unstable familial sporadic postoperative untreated transient
        progressive residual latent marked modest rapid gradual central peripheral
    """,
    "method": """
        ultrasound spirometry biopsy elastography dialysis telemetry acupuncture physiotherapy
        counselling transfusion endoscopy radiotherapy immunisation screening triage debridement
        embolisation catheterisation tomography electrophoresis rehabilitation laparoscopy
    """,
    "lab": """
        ferritin albumin creatinine troponin lactate bilirubin cortisol insulin calcium sodium
        potassium urea glucose amylase prolactin thyrotropin haptoglobin fibrinogen vitamin-D
        homocysteine
    """,
    "place": """
        clinic ward hospital registry cohort district university network island province laboratory
        hospice pharmacy surgery unit county camp village trial programme
    """,
    "link": """
        although whereas because while since unless until before after when once so that as if
        provided
    """,
}
ENGLISH = {name: words.split() for name, words in _ENGLISH.items()}
"""Words by slot."""

_DRUG_PARTS = {
    "start": """
        al be ca do er fa gi ho in ju ka lo mi no or pe qui ri so ta ul ve wo xa zo
    """,
    "middle": """
        ba cri dol fen gli lan mox nar pril ros sta tiv vor zel
    """,
    "end": """
        mab nib pine zole statin cillin oxin amide azol etine idone olol
    """,
}
DRUG_PARTS = {name: words.split() for name, words in _DRUG_PARTS.items()}
"""Syllables of a drug's name: start, middle, end."""

NOUNS = ("disease", "group", "outcome", "method", "lab", "place")
"""Slots that get words around them."""

SENTENCES = (
    "{Drug} {verb} {outcome} of {n} {group} with {disease}.",
    "{Outcome} {verb} {lab} by {n} days, {link} {method} {verb} {outcome}.",
    "Of {n} {group}, {n} had {disease} and {n} had {method}.",
    "{Lab} {verb} {outcome} (p = {p}) in {place}.",
    "{Group} had less {outcome} on {drug} {dose} mg than {group} on {drug}.",
    "{Method} {verb} {outcome} by {pct}% {link} {group} kept {lab}.",
    "In {place}, {disease} {verb} {disease} and {outcome}.",
    "We asked {n} {group} about {outcome}, {method} and {disease}.",
    "{Disease} with {outcome} {verb} {lab} to {pct} units.",
    "{Link} {lab} {verb} {outcome}, {drug} was stopped in {n} {group}.",
    "{Disease} and {disease} {verb} {method} at {place}.",
    "{Outcome} after {method} was {pct}% in {group} and {pct}% in {group}.",
    "The {place} recorded {outcome}, {lab} and {outcome} for {n} months.",
    "{Drug} {dose} mg {verb} {lab}, {link} {drug} {verb} {outcome}.",
    "No {outcome} followed {method} in {group} with {disease}.",
    "{Disease} {verb} {outcome} most where {lab} was {adj}.",
    "{Group} from {place} and {group} from {place} differed in {outcome}.",
    "{Method}, then {drug}, {verb} {disease} in {pct}% of {group}.",
)

QUESTIONS = (
    "Does {drug} change {adj} {outcome} in {group} with {adj} {disease} after {method}?",
    "Is {adj} {lab} linked to {outcome} when {group} undergo {method} for {disease}?",
    "Can {method} before {drug} lower {outcome} among {group} with {disease}?",
    "Do {group} with {adj} {disease} and low {lab} report more {outcome} than {group}?",
    "Should {group} at a {place} have {method} {link} {lab} shows {adj} {disease}?",
    "Which {group} with {disease} profit from {drug} {link} {adj} {outcome} {verb} {lab}?",
    "Has {adj} {method} replaced {drug} for {outcome} in {disease} of {group}?",
)

BOILERPLATE = (
    "© {year} The Authors. All rights reserved.",
    "Copyright {year} Society of Invented Medicine. All rights reserved.",
    "This article is protected by copyright.",
    "We use cookies to improve this site.",
    "Skip to main content",
    "Read more",
    "Share this page",
)

CHINESE_SENTENCES = (
    "{group}服用{drug}后{outcome}{verb}，{lab}为{n}。",
    "{n}例{disease}{group}接受{method}，其中{n}例出现{outcome}。",
    "{lab}{verb}时应考虑{disease}与{disease}的鉴别。",
    "{method}前后比较，{outcome}{verb}{n}%。",
    "{disease}合并{disease}者，{drug}剂量为{dose} mg。",
    "本{place}观察到{outcome}与{lab}{verb}同时发生。",
)

_CHINESE = {
    "disease": """
        哮喘 痛风 贫血 肺炎 肝硬化 癫痫 银屑病 胰腺炎 肾炎 高血压 青光眼
        骨质疏松 淋巴瘤 糖尿病 湿疹
    """,
    "group": """
        患者 儿童 老年人 孕妇 新生儿 青少年 门诊病人 吸烟者 运动员 志愿者
    """,
    "outcome": """
        疼痛 发热 乏力 出血 感染 复发 水肿 失眠 黄疸 咳嗽 头晕 恶心 骨折
        体重
    """,
    "verb": """
        下降 升高 延迟 加重 缓解 消失 恢复 波动 减半 持续
    """,
    "lab": """
        血糖 血钾 肌酐 白蛋白 胆红素 血红蛋白 乳酸 尿酸 血钙 铁蛋白
    """,
    "method": """
        透析 活检 内镜 超声 放疗 针灸 输血 手术 康复 筛查
    """,
    "place": """
        医院 病房 诊所 社区 登记库 实验室 中心
    """,
    "drug": """
        甲洛芬 贝司汀 卡莫唑 多瑞平 伊非尼 法罗林 吉他明 罗沙酯 索米坦 维拉宁
    """,
}
CHINESE = {name: words.split() for name, words in _CHINESE.items()}
"""Words by slot."""
