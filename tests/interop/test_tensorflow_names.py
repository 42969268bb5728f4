"""Names and arrays of TensorFlow checkpoints become those of transformers; this needs no TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from bertsmith.interop.tensorflow import hugging_face_name, to_tensor
from tests.interop.tensorflow_names import DERIVED, FINE_TUNED, PRETRAINING, SHAPE


@pytest.mark.parametrize(("variable", "name"), [*PRETRAINING.items(), *FINE_TUNED])
def test_each_variable_has_the_name_that_transformers_gives_it(variable: str, name: str) -> None:
    assert hugging_face_name(variable) == name


def test_the_table_names_every_weight_of_a_pretrained_bert() -> None:
    model = transformers.BertForPreTraining(transformers.BertConfig(**SHAPE))
    assert {hugging_face_name(variable) for variable in PRETRAINING} == set(model.state_dict()) - DERIVED


def test_layers_beyond_the_ninth_keep_their_number() -> None:
    name = hugging_face_name("bert/encoder/layer_11/output/dense/bias")
    assert name == "bert.encoder.layer.11.output.dense.bias"


@pytest.mark.parametrize(
    "suffix",
    [
        *("adam_m", "adam_v", "Adam", "Adam_1", "AdamWeightDecayOptimizer", "AdamWeightDecayOptimizer_1"),
        *("lamb_m", "lamb_v", "LAMB", "LAMB_1", "ExponentialMovingAverage"),
    ],
)
def test_what_the_optimizer_keeps_of_a_weight_is_no_weight(suffix: str) -> None:
    for variable in PRETRAINING:
        assert hugging_face_name(f"{variable}/{suffix}") is None


@pytest.mark.parametrize("variable", ["global_step", "beta1_power", "beta2_power", "current_loss_scale", "good_steps"])
def test_what_the_training_counts_is_no_weight(variable: str) -> None:
    assert hugging_face_name(variable) is None


def test_variables_that_no_bert_has_are_renamed_and_kept() -> None:
    assert hugging_face_name("tower/layer_3/mixer/kernel") == "tower.layer.3.mixer.weight"
    assert hugging_face_name("adam/gate") == "adam.gate"


def test_kernels_are_transposed_and_nothing_else_is() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    kernel = to_tensor("bert/pooler/dense/kernel", array)
    assert kernel.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert kernel.is_contiguous()
    for variable in ("output_weights", "cls/seq_relationship/output_weights", "bert/embeddings/word_embeddings"):
        assert to_tensor(variable, array).tolist() == array.tolist()


def test_tensors_are_float32_and_own_their_memory() -> None:
    array = np.array([1.5, -2.0], dtype=np.float16)
    tensor = to_tensor("cls/predictions/output_bias", array)
    array[:] = 0
    assert tensor.dtype is torch.float32
    assert tensor.tolist() == [1.5, -2.0]
