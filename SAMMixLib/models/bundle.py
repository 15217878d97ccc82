"""A trained model's tensors, written to a bundle and read back; its card and files are those of :mod:`.card`.

The base weights are not in it: they are named with their SHA-256. Matrices are stored as float16, vectors (norms,
biases, running statistics) as float32; loading gives float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from SAMMixLib import __version__
from SAMMixLib.config import Config
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic_folder, sha256_of
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.models.base_weights import base_weights_of, load_base_weights, load_tensors
from SAMMixLib.models.build import build_folded, build_model
from SAMMixLib.models.card import (
    ADAPTER,
    CARD,
    CLASSIFIER,
    DECODER,
    FILES,
    SCHEMA,
    Bundle,
    open_bundle,
    verify_bundle,
)
from SAMMixLib.networks.lora import load_lora
from SAMMixLib.networks.strict import load_strictly
from SAMMixLib.structure import LIVER

if TYPE_CHECKING:
    from peft import PeftModel


def save_bundle(
    model: SAMMix, config: Config, training: dict[str, Any], folder: Path, *, replace: bool = False
) -> None:
    """Write `model` as a bundle, whole or not at all.

    Args:
        training: the training record; its ``name``, ``structure`` (:meth:`Structure.to_dict`), ``license``,
            ``provenance``, ``purpose`` and ``quality`` (``QualityModel.to_dict``) become the card's own.

    Raises:
        SAMMixError: `folder` exists and `replace` is off, or the disk does not take it.
    """
    folder = Path(folder)
    if folder.exists() and not replace:
        raise SAMMixError(f"{folder}: exists already; choose another name or remove it first")
    if not folder.parent.is_dir():
        raise SAMMixError(f"{folder}: cannot be written (no folder {folder.parent}); choose another folder")
    try:
        with atomic_folder(folder) as beside:
            save_file(_compact(model.classifier.state_dict()), beside / CLASSIFIER)
            save_file(_compact(model.backbone.mask_decoder.state_dict()), beside / DECODER)
            cast("PeftModel", model.backbone.image_encoder).save_pretrained(str(beside / "adapter"))
            (beside / "adapter" / "README.md").unlink(missing_ok=True)  # peft's empty model card
            card = _card(config, training, folder.name)
            card["sha256"] = {name: sha256_of(beside / name) for name in FILES}
            (beside / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise SAMMixError(f"{folder}: cannot be written ({error}); free some disk space") from None


def _card(config: Config, training: dict[str, Any], name: str) -> dict[str, Any]:
    record = dict(training)
    structure = record.pop("structure", None) or LIVER.to_dict()
    return {
        "schema": SCHEMA,
        "name": record.pop("name", name),
        "purpose": record.pop("purpose", f"{structure['name']} segmentation in CT, for research"),
        "structure": structure,
        "license": record.pop("license", "not stated"),
        "provenance": record.pop("provenance", []),
        "written_by": f"SAMMixLib {__version__}",
        "base": base_weights_of(config),
        "config": config.to_dict(),
        **{name: record.pop(name) for name in ("quality",) if name in record},
        "training": record,
    }


def _compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (value.half() if value.ndim > 1 else value).contiguous().cpu() for name, value in state.items()}


def load_bundle(folder: str | Path, base_weights: str | Path | None = None, fold: bool = False) -> SAMMix:
    """The model of a bundle, in float32, on the CPU, ready to train on, or with `fold` to segment with.

    Args:
        base_weights: the file of a ViT backbone's public weights; LiteMedSAM's come with its package.
        fold: put the adapters into the encoder's own weights, which needs no peft.

    Raises:
        SAMMixError: the bundle is damaged, or the base weights are missing or not those it was trained on.
    """
    bundle = open_bundle(folder)
    verify_bundle(bundle)
    weights = load_base_weights(bundle.config, base_weights, bundle.card["base"])
    adapter, where = _tensors(bundle, ADAPTER), str(bundle.folder / ADAPTER)
    if fold:
        model = build_folded(bundle.config.model, weights, adapter, where)
    else:
        model = build_model(bundle.config.model, weights)
        load_lora(cast("PeftModel", model.backbone.image_encoder), adapter, where)
    load_strictly(model.classifier, _tensors(bundle, CLASSIFIER), str(bundle.folder / CLASSIFIER))
    load_strictly(model.backbone.mask_decoder, _tensors(bundle, DECODER), str(bundle.folder / DECODER))
    return model.eval()


def _tensors(bundle: Bundle, name: str) -> dict[str, Tensor]:
    return {key: value.float() for key, value in load_tensors(bundle.folder / name).items()}
