#!/usr/bin/env python3
"""Makes unicode.txt and the golden files of the tokenizer's tests.

    pip install tokenizers==0.22.2
    make-unicode.py TOKENIZER_JSON

The truth is the reference implementation (Hugging Face tokenizers), whose Unicode tables are older than Go's and mixed from several
versions. So nothing is derived from a Unicode version: every one of the 1,112,064 scalar values is asked what it becomes.
unicode.txt is that answer, run-length coded, in hexadecimal:

    LO-HI drop      nothing is left
    LO-HI space     ends a word
    LO-HI punct     is a word of its own
    LO-HI hangul    decomposes by the arithmetic of The Unicode Standard, section 3.12
    CP > CP ...     becomes these, each by its own class

What is not listed stays as it is. Canonical ordering needs no table: none of the marks that it moves is in the vocabulary, so that a word
with one is unknown in any order.
"""
import hashlib
import json
import pathlib
import random
import struct
import sys
import unicodedata

import tokenizers
from tokenizers import Tokenizer

assert tokenizers.__version__ == "0.22.2", tokenizers.__version__

here = pathlib.Path(__file__).parent
ref = Tokenizer.from_file(sys.argv[1])
ref.no_truncation()
ref.no_padding()
ref.encode_special_tokens = True  # "[SEP]" in a document is text, never a control token
normal, pre = ref.normalizer.normalize_str, ref.pre_tokenizer.pre_tokenize_str

assert not any(unicodedata.combining(ch) for token in ref.get_vocab() for ch in token), "canonical ordering matters after all"

SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def kind(ch, memo={}):
    """How a normalised character is seen by the pre-tokenizer: word, space or punct."""
    if ch not in memo:
        memo[ch] = {1: "word", 2: "space", 3: "punct"}[len(pre("a" + ch + "b"))]
    return memo[ch]


def classify(c):
    ch = chr(c)
    out = normal("a" + ch + "b")[1:-1]
    if out == "":
        return "drop"
    if out == " ":
        return "space"
    if out == ch:
        return kind(ch)
    if out == " " + ch + " " and kind(ch) == "word":
        return "punct"  # CJK: alone, all the same
    if 0xAC00 <= c <= 0xD7A3 and out == hangul(c):
        return "hangul"
    return out


def hangul(c):
    s = c - 0xAC00
    out = chr(0x1100 + s // 588) + chr(0x1161 + s % 588 // 28)
    return out + chr(0x11A7 + s % 28) if s % 28 else out


classes = {c: classify(c) for c in SCALARS}


NAMED = {"drop", "space", "punct", "hangul"}

lines = []
run = None
for c in SCALARS + [0x110000]:
    k = classes.get(c, "word")
    if run and (k != run[2] or c != run[1] + 1):
        lines.append((run[0], f"{run[0]:X}-{run[1]:X} {run[2]}" if run[1] > run[0] else f"{run[0]:X} {run[2]}"))
        run = None
    if k in NAMED:
        run = (run[0], c, k) if run else (c, c, k)
for c in SCALARS:
    k = classes[c]
    if k == "word" or k in NAMED:
        continue
    target = k.replace(" ", "")
    # A space in it is a CJK character's, which its own class stands for.
    assert all(classes[ord(t)] in ("word", "punct") for t in target) and (k == target or classes[ord(target)] == "punct"), hex(c)
    lines.append((c, f"{c:X} > " + " ".join(f"{ord(t):X}" for t in target)))
lines.sort()
(here / "unicode.txt").write_text(
    "# Made by make-unicode.py from tokenizers 0.22.2; do not edit.\n" + "\n".join(l for _, l in lines) + "\n"
)

# The golden files: a digest over every scalar value, and cases a person can read.
digest = hashlib.sha256()
STEP = 1 << 14
for at in range(0, len(SCALARS), STEP):
    part = SCALARS[at : at + STEP]
    texts = [t for c in part for t in (chr(c), "a" + chr(c) + "b")]
    for e in ref.encode_batch(texts):
        digest.update(struct.pack(f"<{len(e.ids)}H", *e.ids))
(here / "testdata/wordpiece-sweep.sha256").write_text(digest.hexdigest() + "\n")

rnd = random.Random(20)
pools = [
    "abcdefghij ABCDEFGHIJ0123456789",
    "éÉüÜñÑçøØßœŒłžŽ aeiou",
    "日本語中文漢字 ひらがなカタカナ abc",
    "한국어 서울 각낙닭 abc",
    "अआइकखगघ़्ािी বাংলা தமிழ் a",
    "\u0300\u0301\u0323\u0308aeiou \u1b44\U0001d165\U0001d16d\u302e\u302f\u093c\u0345\u0f73\u00ad\u200b\u0902",
    "!?.,;:-_()[]{}<>\"'`~@#$%^&*+=|\\/ abc",
    "😀🎉👩‍👩‍👧🏽🇩🇪❤️ abc",
    "\t\n\r\v\f\x00\x01\x7f\u0085\u00a0\u2028\u3000\ufeff\ufffd ab",
    "ΑΒΓαβγάΆςΣ БВГбвгёЁй אבגשׁ ابتث",
    "ǅǆﬁﬀİıſKÅΩ①½²",
]
cases = [
    "", " ", "hello world", "Hello, World!", "[CLS] [SEP] [MASK] [UNK] [PAD]", "unaffable", "a" * 100, "a" * 101, "b" * 1000, "é" * 100, "é" * 101,
    "##ing ##", "don't can't", "naïve café", "x" * 99 + "!", "日本語", "한국어", "İstanbul", "ﬁnancial", "e\u0301", "\ufffd", "½ ² ①", "Ⅳ", "ΌΔΟΣ",
    "func (s *Store) Apply(ctx context.Context) error { return nil }", "https://example.org/a?b=c&d=e#f", "a\u00adb", "a\u200bb", "१२३", "\U0001d15e",
]
while len(cases) < 400:
    pool = rnd.choice(pools) + rnd.choice(pools)
    cases.append("".join(rnd.choice(pool) for _ in range(rnd.randint(1, 40))))
with open(here / "testdata/wordpiece.jsonl", "w", encoding="utf-8") as f:
    for text, e in zip(cases, ref.encode_batch(cases)):
        f.write(json.dumps({"text": text, "ids": e.ids}) + "\n")
print(len(lines), "lines;", digest.hexdigest())
