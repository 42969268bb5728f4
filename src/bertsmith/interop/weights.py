"""Finds and reads the weights of a Hugging Face directory: safetensors or `.bin`, whole or in shards.

Not here: whose names the tensors have (`interop.families`), and checksums (the manifest of our own directories).
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bertsmith.errors import InputError, listing
from bertsmith.files import read_json
from bertsmith.interop.torchfile import read_torch_file

WEIGHTS = "model.safetensors"
CANDIDATES = (WEIGHTS, f"{WEIGHTS}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Where weights may be, the first one wins."""


def weights_file(directory: Path) -> Path:
    """The file of `directory` that holds its weights, or the index of their shards. Raises `InputError`."""
    for name in CANDIDATES:
        if (directory / name).is_file():
            return directory / name
    raise InputError(f"no weights in it; a model directory holds one of: {', '.join(CANDIDATES)}", file=directory)


def read_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` or PyTorch file, or of the shards that an index names."""
    if not file.is_file():
        raise InputError("no such file", file=file)
    if file.name.endswith(".index.json"):
        return _read_shards(file)
    if file.suffix != ".safetensors":
        return read_torch_file(file)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"not a readable safetensors file ({error}); it is damaged", file=file) from None


def _read_shards(index: Path) -> dict[str, Tensor]:
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError("has no table of tensors and their files", file=index, field="weight_map")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or name.endswith(".json"):
            raise InputError(f"names a file that is no shard beside it: {name!r}", file=index, field="weight_map")
        if not (index.parent / name).is_file():
            raise InputError(f"the shard is missing, {index.name} lists it", file=index.parent / name)
        tensors |= read_weights(index.parent / name)
    missing = [name for name in places if name not in tensors]
    if missing:
        raise InputError(f"tensors are in none of the shards: {listing(missing, 5)}", file=index)
    return tensors
