"""netron opens an exported file: its server hands the file out, and reads the graph of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import netron
import onnx
import pytest

from bertsmith.export.answers import EncoderGraph, encoder_part
from bertsmith.export.graph_file import write_graph
from bertsmith.models.sentence import SentenceModules
from tests.parity.reference import pair


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    _, ours = pair("BertForSequenceClassification")
    write_graph(tmp_path, encoder_part(EncoderGraph(ours.float(), "classify", SentenceModules())), metadata={})
    yield tmp_path / "model.onnx"
    netron.stop()


def served(address: tuple[str, int], path: str) -> bytes:
    with urlopen(f"http://{address[0]}:{address[1]}/{path}", timeout=30) as answer:
        content: bytes = answer.read()
    return content


@pytest.mark.slow
def test_netron_s_server_answers_with_the_graph(file: Path) -> None:
    address = netron.serve(str(file), None)
    assert b'content="/data/model.onnx"' in served(address, "")
    assert served(address, "data/model.onnx") == file.read_bytes()
    read: Any = json.loads(served(netron.serve(None, onnx.load(file)), "data/model.netron"))
    names = [node["name"] for node in read["graphs"][0]["nodes"]]
    assert len(set(names)) == len(names) > 50
    assert "model.encoder.blocks.0.attention.qkv.Gemm" in names
