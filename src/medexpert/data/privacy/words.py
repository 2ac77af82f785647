"""Word lists behind the rules for English names and hospitals."""

from __future__ import annotations

_GIVEN = """
Aaron Abigail Adam Ahmed Aisha Alan Albert Alexander Alice Alison Amanda Amelia Amy Ana Andrea
Andrew Angela Anita Anna Anne Anthony Arthur Ashley Barbara Benjamin Beth Betty Brandon Brenda
Brian Carl Carlos Carmen Carol Caroline Catherine Charles Charlotte Cheryl Chloe Christina
Christine Christopher Claire Craig Cynthia Daniel David Deborah Debra Denise Dennis Diana Diane
Donald Donna Dorothy Douglas Edward Eileen Elaine Eleanor Elena Elizabeth Ellen Emily Emma Eric
Ethan Evelyn Fatima Fiona Florence Frances Francis Fred Gareth Gary Geoffrey George Gerald Gillian
Gloria Graham Gregory Hannah Harold Harry Hassan Heather Helen Henry Howard Hugh Ian Irene
Isabella Jack Jacob Jacqueline James Jane Janet Janice Jason Jean Jeffrey Jennifer Jeremy Jerry
Jessica Joan Joanna John Jonathan José Jose Joseph Joshua Joyce Juan Judith Judy Julia Julie
Justin Karen Katherine Kathleen Keith Kelly Kenneth Kevin Kimberly Laura Lauren Lawrence Leonard
Leslie Linda Lisa Louise Lucy Luis Lynn Margaret Maria Marie Marilyn Mark Martha Martin Mary
Matthew Megan Melissa Michael Michelle Mohamed Mohammed Muhammad Nancy Natalie Nathan Neil
Nicholas Nicole Nigel Olivia Omar Pamela Patricia Patrick Paul Paula Pauline Peter Philip Phillip
Priya Rachel Ralph Raymond Rebecca Richard Robert Robin Roger Ronald Rosemary Ruth Ryan Samantha
Samuel Sandra Sara Sarah Scott Sean Sharon Sheila Shirley Simon Sofia Sophia Sophie Stephanie
Stephen Steven Stuart Susan Suzanne Teresa Terry Theresa Thomas Timothy Tracy Valerie Vanessa
Victor Victoria Vincent Walter Wayne Wendy William Yusuf Yvonne Zachary Zoe
"""
_GENERIC = """
a academic acute affiliated and area assessment at cancer cardiac cardiology care center centers
centre centres central children childrens clinic clinical clinics community day dental department
diabetes district emergency ethics eye family first foundation general government group health
hospice hospital hospitals infirmary institute integrated intensive liver maternity medical
medicine memory mental national nhs nursing home of or oral orthodontic orthopaedic orthopedic
outpatient outpatients pain pediatric paediatric practice primary private psychiatric public
referral regional rehabilitation rural s sleep specialist specialty state surgery surgical system
teaching tertiary the third trauma trust university urban urgent veterans women
"""
_NOT_NAMES = """
a abdomen about above absent abstract acute addendum additional address admission admit admitted
adult advised after age aged aim aims airway alert all allergies allergy also am an and anesthesia
any april as assessment at attending august baby background baseline bed bilateral blood body both
boy breast but by call cardiac cardiology care case cc chart chief child chronic clinic clinical
comments complaint conclusion conclusions condition consent consult consultant contact control
country course current daily date day days dear deceased december denied denies department design
diagnosis diagnostic did died dob doctor doctors does dose drug duration during each ed education
elderly emergency english er evaluation exam examination experience family father february female
findings first follow following follows for friday from full gender general girl gp group had has
he health heart her his history home hospital hour hours house however i icu if impression in
independent infant information initial intervention investigation is it january july june kin
known lab laboratory lady last left level life lung lungs mail male man management march marital
married may mean measure measures medical medication medications medicine method methods middle
monday month mother mr mrn mrs ms name negative neuro new newborn next nhs nil no nok non none
normal not note notes november now number nurse nurses nursing objective objectives occupation
october of office old on one only or other our out outcome outcomes outpatient overall oxygen pain
parent parents participant participants partner past patient patients perspective phone physical
physician physicians plan please population position positive practice pre pregnant present
presented prior private problem procedure process prof professor program provider pt public
quality rate reason record records refer referral regular relationship report reports research
residency resident respiratory result results review right risk rn room satisfaction saturday
scale score section see seen self september service services setting sex she signed signs single
sir sister skin social son specialist specialists staff statement status study subject subjects
summary sunday surgery surgical symptoms systems team tel telephone temp temperature test that the
their then therapy there these they this those thursday time title to today total training
treatment trial tuesday two type under undergoing unit unknown unspecified urgent us usa visit
vital vitals ward was we wednesday week weight well were what when where which while who widowed
wife will with woman women working year years yes your
"""

GIVEN = frozenset(_GIVEN.split())
"""Common given names: with a second capitalised word they are a name."""

GENERIC = frozenset(_GENERIC.split())
"""Words of which no particular hospital's name is made."""

NOT_NAMES = frozenset(_NOT_NAMES.split())
"""Words that are capitalised in headings, labels and sentence starts and are no part of a name."""
