"""Invented rows and files in the published schemas."""

from __future__ import annotations

TEXT = (
    "Forty people drank warm tea by lot. The stay on the ward was shorter than without, we think."
)
ZH = "嗓子疼的病人喝了温水，三天以后好了。医生说再休息两天，不要说太多的话。"
MCQ = {"id": "m", "question": "Which drink?", "options": {"A": "tea", "B": "ice"}}
MCQ |= {"answer_idx": "A", "explanation": "Warmth helps."}
MEDQA = {"question": "Which drink helps?", "answer": "tea", "options": {"A": "tea", "B": "ice"}}
MEDQA |= {"meta_info": "step1", "answer_idx": "A"}
MEDMCQA = {"id": "u", "question": "Which?", "exp": "since", "cop": 4, "choice_type": "single"}
MEDMCQA |= {"opa": "a", "opb": "b", "opc": "c", "opd": "d", "subject_name": "X", "topic_name": None}
TURNS = [{"role": "patient", "content": "It hurts."}, {"role": "doctor", "content": "Rest."}]
GPT = [{"from": "human", "value": "It hurts."}, {"from": "gpt", "value": "Rest for a day."}]
PQA = {
    "QUESTION": "Does tea shorten a stay?", "CONTEXTS": ["Forty people.", "Two arms."],
    "LABELS": ["METHODS", "RESULTS"], "MESHES": ["Tea"], "YEAR": "2020", "LONG_ANSWER": "It may.",
    "final_decision": "yes", "reasoning_required_pred": "yes", "reasoning_free_pred": "yes",
}  # fmt: skip
OWN = {
    "id": "o", "source": "x", "kind": "qa", "template": "chat.qa", "lang": "en", "licence": "MIT",
    "fields": {"question": "Does tea help?", "answer": TEXT}, "ids": {"pmid": "12"},
}  # fmt: skip
SECTIONS = [{"label": "METHODS", "text": TEXT}, {"label": "RESULTS", "text": "Shorter by a day."}]
PAPER = {"id": "PMC1", "pmid": "4", "title": "Tea", "license": "CC-BY", "lang": "en"}
EVIDENCE = {
    "id": "ei2-", "split": "train", "pmcid": "PMC7", "pmid": "5", "title": "Tea", "year": "2001",
    "license": "CC-BY", "intervention": "tea", "comparator": "water", "outcome": "stay",
    "label": "significantly decreased", "agree": True,
    "abstract": [{"label": "METHODS", "text": "By lot."}, {"label": "RESULTS", "text": "Shorter."}],
    "annotations": [
        {"user": "0", "label": "significantly decreased", "label_code": -1, "valid_label": "True",
         "valid_reasoning": "True", "evidence": "shorter (p = 0.01)"},
    ],
}  # fmt: skip
BIOASQ = {
    "id": "5be", "body": "Is tea warm?", "type": "yesno", "exact_answer": "yes", "triples": [],
    "documents": ["http://www.ncbi.nlm.nih.gov/pubmed/12"], "concepts": [],
    "snippets": [{"text": "Tea is warm.", "document": "http://www.ncbi.nlm.nih.gov/pubmed/34",
                  "beginSection": "title"}],
    "ideal_answer": ["Tea is warm."],
}  # fmt: skip
HEADQA = {"qid": "1", "qtext": "Which?", "ra": "2", "image": ""}
HEADQA |= {"answers": [{"aid": 1, "atext": "one"}, {"aid": 2, "atext": "two"}]}
LIVEQA = {"id": "liveqa-TQ", "subject": "tea", "message": "Is tea good?", "summary": "Tea?"}
LIVEQA |= {"paraphrase": "Tea?", "references": [{"answer": "Yes.", "url": "http://example.org"}]}
CMB = {"exam_type": "x", "question": "何者为是", "answer": "AC", "question_type": "多项选择题"}
CMB |= {"option": {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}}
APOLLO = {"question": "何者？", "options": "(A) 甲.\n(B) 乙.", "answer": "(B)", "source": "x"}
S2ORC = {
    "corpusid": 7, "externalids": {"PubMed": "1", "DOI": "10.1/x", "PubMedCentral": "5"},
    "content": {
        "source": {"oainfo": {"license": "CCBY"}}, "text": "Tea\nShort.\nIntro\nOne.",
        "annotations": {
            "title": '[{"start": 0, "end": 3}]', "abstract": '[{"start": 4, "end": 10}]',
            "sectionheader": '[{"start": 11, "end": 16}]',
            "paragraph": '[{"start": 4, "end": 10}, {"start": 17, "end": "21"}]',
        },
    },
}  # fmt: skip
S2ORC_OLD = {
    "paper_id": "1", "title": "t", "abstract": [{"text": "a", "section": "Abstract"}], "doi": "x",
    "metadata": {"title": ""}, "body_text": [{"text": "b", "section": "s"}], "pubmed_id": 12,
}  # fmt: skip

MEDLINE = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE PubmedArticleSet SYSTEM "http://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">
<PubmedArticleSet>{}<DeleteCitation><PMID Version="1">99</PMID></DeleteCitation></PubmedArticleSet>
"""
CITATION = """<PubmedArticle><MedlineCitation Status="MEDLINE" Owner="NLM">
<PMID Version="1">{}</PMID><Article PubModel="Print">
<Journal><JournalIssue><PubDate><Year>2018</Year></PubDate></JournalIssue></Journal>
<ArticleTitle>Tea for <i>colds</i>.</ArticleTitle>
<Abstract><AbstractText Label="METHODS">We gave 10<sup>6</sup> cups, p &lt; 0.05.</AbstractText>
<AbstractText Label="RESULTS">The stay was shorter.</AbstractText></Abstract>
<Language>eng</Language><PublicationTypeList><PublicationType>Journal Article</PublicationType>
</PublicationTypeList></Article></MedlineCitation><PubmedData><ArticleIdList>
<ArticleId IdType="pubmed">1</ArticleId><ArticleId IdType="pmc">PMC7</ArticleId></ArticleIdList>
</PubmedData></PubmedArticle>
"""
JATS = """<?xml version="1.0"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) v1.2//EN" "JATS-archivearticle1.dtd">
<article article-type="research-article" xml:lang="en" xmlns:xlink="http://www.w3.org/1999/xlink">
<front><article-meta><article-id pub-id-type="pmc">{0}</article-id><article-id pub-id-type="pmid">
1{0}</article-id><title-group><article-title>Tea <italic>or</italic> not</article-title>
</title-group><pub-date><year>2019</year></pub-date><permissions><license
xlink:href="http://creativecommons.org/licenses/by/4.0/"><license-p>Free.</license-p></license>
</permissions><abstract><sec><title>Methods</title><p>Two arms.</p></sec></abstract></article-meta>
</front><body><p>Before any heading <xref ref-type="bibr" rid="b1">[1]</xref>.</p>
<sec><title>1. Doses</title><p>We gave 10<sup>6</sup> cups.</p><fig id="f1"><caption><p>x</p>
</caption></fig><list><list-item><p>5 mg</p></list-item></list></sec></body>
<back><ref-list><ref>Old paper.</ref></ref-list></back></article>"""
RCT = "".join(
    f"###10{n}\nOBJECTIVE\tTo learn whether tea helps .\nMETHODS\tForty people , by lot .\n"
    f"RESULTS\tThe stay was shorter ( p = 0.{n} ) .\n\n"
    for n in range(1, 9)
)
MEDQUAD = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="000000{}" source="X" url="https://pubmed.ncbi.nlm.nih.gov/77/">
<Focus>Tea fever</Focus><QAPairs><QAPair pid="1"><Question qid="000000{}-1" qtype="causes">Why ?
</Question><Answer>A fever.
  - after   tea</Answer></QAPair><QAPair pid="2"><Question qid="2-2" qtype="x">When ?</Question>
<Answer></Answer></QAPair></QAPairs></Document>"""
LIVEQA_XML = """<?xml version="1.0"?><LiveQA2017-Medical-Test-Set-Full>
<NLM-QUESTION qid="TQ1"><Original-Question qfile="1.txt"><SUBJECT>Tea fever</SUBJECT>
<MESSAGE>Does it pass?</MESSAGE></Original-Question><NIST-PARAPHRASE>Does it?</NIST-PARAPHRASE>
<NLM-Summary>Tea fever?</NLM-Summary><ReferenceAnswers><RefAnswer aid="TQ1A1"><ANSWER>It does.
</ANSWER><AnswerURL>https://www.ncbi.nlm.nih.gov/pubmed/55</AnswerURL></RefAnswer>
</ReferenceAnswers></NLM-QUESTION></LiveQA2017-Medical-Test-Set-Full>"""
DIALOGUE = """id={0}
https://example.org/q/{0}
Description
I have a sore throat.

Dialogue
Patient:
I have a sore throat.
Doctor:
Drink warm tea {0}.

"""
HTML = """<!DOCTYPE html><html><head><title>Tea</title><meta charset="utf-8"></head><body><nav>Home
</nav><article><h1>Tea and colds</h1><p>Forty people drank warm tea by lot for two weeks, and the
ward wrote down how long each of them stayed.</p><p>The stay was shorter than without.</p>
<ul><li>one cup</li><li>two cups</li></ul></article><script>x()</script></body></html>"""
PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>
>>>>endobj
4 0 obj<</Length 52>>stream
BT /F1 12 Tf 20 200 Td (Forty people drank tea.) Tj ET
endstream endobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
trailer<</Root 1 0 R/Size 6>>
%%EOF
"""
CMEDQA = {
    "question.csv": "question_id,content\n1,嗓子疼怎么办\n2,咳嗽\n".encode(),
    "train_candidates.txt": b"question_id,pos_ans_id,neg_ans_id\n1,10,11\n2,12,11\n",
}
CMEDQA_ANSWERS = "ans_id,question_id,content\n10,1,喝温水\n11,2,休息\n12,2,多喝水\n13,1,\n"
MMLU = '"Which, now?",one,two,three,four,C\n' * 2 + "Which?,a,b,c,d,A\n" * 4
CMMLU = ",Question,A,B,C,D,Answer\n" + "".join(f"{n},何者为是,甲,乙,丙,丁,B\n" for n in range(6))
CMEXAM = "Question,Options,Answer,Explanation,Disease Group\n" + "".join(
    f'何者为是{n},"A 甲\nB 乙 丙\nC 丁",B,乙对。,\n' for n in range(6)
)
