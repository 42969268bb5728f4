"""The examples run, with a model that bertsmith wrote."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from bertsmith.config.finetune import EmbedderOptions
from bertsmith.train.finetune import finetune

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_keywords_come_from_the_text(encoder_dir: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    rows = [("the cat", "a dog"), ("one fish", "the old man"), ("a girl", "the bird"), ("a red ball", "the green tree")]
    pairs.write_text("anchor\tpositive\n" + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "embedder"
    finetune(EmbedderOptions(model=str(encoder_dir), train=pairs, out=out, steps=2, batch_size=4, threads=2))
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "keywords.py", out, "json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    name, _, found = ran.stdout.strip().partition(": ")
    keywords = re.findall(r"(\w+) -?\d\.\d\d", found)
    assert name == "json"
    assert len(keywords) == 5
    text = "\n".join(inspect.getdoc(part) or "" for part in (json, *vars(json).values())).lower()
    assert all(word in text for word in keywords)
