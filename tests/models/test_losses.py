"""The losses against torch's own, in value, gradient and what they count as right."""

import pytest
import torch
import torch.nn.functional as F

from bertsmith.models.losses import CHUNK, vocabulary_cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cross_entropy_of_a_vocabulary_is_torchs_with_its_gradient(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    classes = 5000
    items = CHUNK // classes + 7  # more than one chunk of rows
    logits = (3 * torch.randn(items, classes)).to(dtype).requires_grad_()
    labels = torch.randint(0, classes, (items,))
    labels[::3] = logits[::3].argmax(-1)  # some are right
    wide = logits.detach().float() if dtype == torch.bfloat16 else logits.detach().clone()
    reference = wide.clone().requires_grad_()
    expected = F.cross_entropy(reference, labels, reduction="sum")
    (expected * 0.5).backward()

    total, is_highest = vocabulary_cross_entropy(logits * 1.0, labels)
    (total * 0.5).backward()

    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-5}[dtype]
    torch.testing.assert_close(total.to(expected.dtype), expected, rtol=tolerance, atol=0.0)
    half = dtype == torch.bfloat16
    torch.testing.assert_close(
        logits.grad.to(expected.dtype), reference.grad, rtol=1e-2 if half else 1e-5, atol=1e-6 if half else tolerance
    )
    best = wide.max(-1).values
    assert is_highest.tolist() == (wide.gather(1, labels[:, None])[:, 0] == best).tolist()
    assert 0 < int(is_highest.sum()) < items


def test_its_gradient_can_be_taken_once() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    total, _ = vocabulary_cross_entropy(logits * 1.0, torch.tensor([0, 1, 2]))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used already"):
        total.backward()
