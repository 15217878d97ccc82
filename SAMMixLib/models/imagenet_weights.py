"""ImageNet weights for ResNet38, under the names that its public file gives them."""

from __future__ import annotations

from pathlib import Path

from SAMMixLib.models.base_weights import load_tensors
from SAMMixLib.networks.classifiers.resnet38 import ResNet38
from SAMMixLib.networks.strict import load_strictly

# Layers of a block: the public file's name and ours. The names of the file are those of Wu et al.'s MXNet model.
BLOCK_LAYERS = {
    "bn_branch2a": "norm1",
    "conv_branch2a": "conv1",
    "bn_branch2b1": "norm2",
    "conv_branch2b1": "conv2",
    "bn_branch2b2": "norm3",
    "conv_branch2b2": "conv3",
    "conv_branch1": "shortcut",
}


def load_imagenet_weights(body: ResNet38, path: str | Path) -> None:
    """Load ImageNet weights from the public PyTorch file ``ilsvrc-cls_rna-a1_cls1000_ep-0001.pth`` (402 MB).

    Araslanov and Roth offer it beside "Single-Stage Semantic Segmentation from Image Labels" (visinf/1-stage-wseg),
    converted from Wu et al.'s own.

    Raises:
        SAMMixError: the file cannot be read, or its keys or shapes are not those of `body`.
    """
    state = {_own_key(key): tensor for key, tensor in load_tensors(path).items()}
    # Files written before PyTorch counted batches lack this; only a running mean without momentum would use it.
    for key, tensor in body.state_dict().items():
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, tensor)
    load_strictly(body, state, str(path))


def _own_key(key: str) -> str:
    """``b4_2.bn_branch2a.weight`` of the public file is ``b4.2.norm1.weight`` here."""
    block, _, rest = key.partition(".")
    if block in ("conv1a", "bn7"):
        return {"conv1a": "stem", "bn7": "norm"}[block] + "." + rest
    stage_name, _, index = block.partition("_")
    layer, _, parameter = rest.partition(".")
    position = "" if stage_name in ("b6", "b7") else f".{index or 0}"
    return f"{stage_name}{position}.{BLOCK_LAYERS.get(layer, layer)}.{parameter}"
