"""Run an exported model with onnxruntime, tokenizers and numpy alone: python onnx_only.py DIR "a text" "another"."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

directory, texts = Path(sys.argv[1]), sys.argv[2:]
config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
session = onnxruntime.InferenceSession(directory / "onnx" / "model.onnx")
tokenizer.enable_truncation(int(session.get_modelmeta().custom_metadata_map["max_length"]))
tokenizer.enable_padding(pad_id=config["pad_token_id"])

encodings = tokenizer.encode_batch(texts)
fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
wanted = [entry.name for entry in session.get_inputs()]
feeds = {name: np.array([getattr(encoding, fields[name]) for encoding in encodings]) for name in wanted}
outputs = dict(zip([entry.name for entry in session.get_outputs()], session.run(None, feeds), strict=True))

if "sentence_embedding" in outputs:
    vectors = outputs["sentence_embedding"]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for text, cosine in zip(texts, vectors @ vectors[0], strict=True):
        print(f"{cosine:.4f}\t{text}")
else:
    exponents = np.exp(outputs["logits"] - outputs["logits"].max(-1, keepdims=True))
    for text, shares in zip(texts, exponents / exponents.sum(-1, keepdims=True), strict=True):
        print(f"{config['id2label'][str(shares.argmax())]}\t{shares.max():.4f}\t{text}")
