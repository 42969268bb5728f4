"""What int8 costs in answers, for `infer.py`: Spearman on STS-B, accuracy of an SST-2 classifier made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertsmith.config.finetune import ClassifyOptions
from bertsmith.config.inference import EvaluateOptions
from bertsmith.evaluate import evaluate
from bertsmith.train.finetune import finetune
from report import row
from samples import mini_lm, write_sample


def quality(data: Path, work: Path, threads: int) -> list[dict[str, Any]]:
    """Rows of int8 against float32, both ours."""
    classifier, train, test = work / "sst2", work / "sst2-train.tsv", data / "sst2/test.tsv"
    work.mkdir(parents=True, exist_ok=True)
    if not (classifier / "bertsmith.json").is_file():
        write_sample(data / "sst2/train.tsv", train, has_header=False)
        options = {"columns": "text,label", "epochs": 2.0, "batch_size": 16, "learning_rate": 1e-4, "threads": threads}
        finetune(ClassifyOptions(model=str(mini_lm()), train=train, out=classifier, overwrite=True, **options))
    cases = {
        "STS-B dev, Spearman": (mini_lm(), data / "stsb/stsb-en-dev.csv", "text_a,text_b,score", "spearman"),
        "SST-2 test, accuracy": (classifier, test, "text,label", "accuracy"),
    }
    rows = []
    for case, (model, file, columns, metric) in cases.items():
        values = []
        for engine in ("int8", "torch"):
            found = evaluate(
                EvaluateOptions(model=str(model), data=file, columns=columns, engine=engine, threads=threads)
            )
            values.append(float(found[metric]))
        rows.append(row(case, "float32", *values, "share"))
    return rows
