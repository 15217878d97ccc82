"""A trained model on disk: a folder with ``sammix.json`` and safetensors files.

========================  ==========================================================================
``sammix.json``           schema, config, structure (the liver where there is none), base weights, training record,
                          licence, hash of every file
``classifier.safetensors``  the classifier
``adapter/``              LoRA in peft's own format
``decoder.safetensors``   the mask decoder
========================  ==========================================================================

The base weights are not in it: they are named with their SHA-256. Matrices are stored as float16, vectors (norms,
biases, running statistics) as float32; loading gives float32.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SAMMixLib import __version__
from SAMMixLib.config import LITE_MEDSAM, Config
from SAMMixLib.errors import SAMMixError
from SAMMixLib.structure import LIVER, Structure

if TYPE_CHECKING:
    from torch import Tensor

    from SAMMixLib.method.sam_mix import SAMMix

SCHEMA = 1
CARD = "sammix.json"
CLASSIFIER = "classifier.safetensors"
DECODER = "decoder.safetensors"
ADAPTER = "adapter/adapter_model.safetensors"
ADAPTER_CONFIG = "adapter/adapter_config.json"
FILES = (CLASSIFIER, DECODER, ADAPTER, ADAPTER_CONFIG)


@dataclass(frozen=True)
class Bundle:
    """A bundle's card, read and checked, with its tensors still on disk."""

    folder: Path
    card: dict[str, Any]

    @property
    def name(self) -> str:
        return self.card["name"]

    @property
    def config(self) -> Config:
        return Config.from_dict(self.card["config"], f"{self.folder / CARD}: config")

    @property
    def structure(self) -> Structure:
        """What the model segments."""
        data = self.card.get("structure")
        return LIVER if data is None else Structure.from_dict(data, f"{self.folder / CARD}: structure")

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def save_bundle(model: SAMMix, config: Config, training: dict[str, Any], folder: Path, replace: bool = False) -> None:
    """Write `model` as a bundle: into a folder beside, then renamed, so that a half-written one never shows.

    Args:
        training: the training record; its ``name``, ``structure`` (:meth:`Structure.to_dict`), ``license``,
            ``provenance`` and ``purpose`` become the card's own.

    Raises:
        SAMMixError: `folder` exists and `replace` is off, or the disk does not take it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from SAMMixLib.files import sha256_of

    folder = Path(folder)
    if folder.exists() and not replace:
        raise SAMMixError(f"{folder}: exists already; choose another name or remove it first")
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
    try:
        save_file(_compact(model.classifier.state_dict()), beside / CLASSIFIER)
        save_file(_compact(model.backbone.mask_decoder.state_dict()), beside / DECODER)
        model.backbone.image_encoder.save_pretrained(beside / "adapter")
        (beside / "adapter" / "README.md").unlink(missing_ok=True)  # peft's empty model card
        record = dict(training)
        structure = record.pop("structure", None) or LIVER.to_dict()
        card = {
            "schema": SCHEMA,
            "name": record.pop("name", folder.name),
            "purpose": record.pop("purpose", f"{structure['name']} segmentation in CT, for research"),
            "structure": structure,
            "license": record.pop("license", "not stated"),
            "provenance": record.pop("provenance", []),
            "written_by": f"SAMMixLib {__version__}",
            "base": base_weights_of(config),
            "config": config.to_dict(),
            "training": record,
            "sha256": {name: sha256_of(beside / name) for name in FILES},
        }
        (beside / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        _swap_in(beside, folder)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise SAMMixError(f"{folder}: cannot be written ({error}); free some disk space") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _swap_in(beside: Path, folder: Path) -> None:
    """Rename `beside` to `folder`; an old bundle there steps aside first and goes last."""
    beside.chmod(0o755)
    old = folder.with_name(f".{folder.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (value.half() if value.ndim > 1 else value).contiguous().cpu() for name, value in state.items()}


def base_weights_of(config: Config) -> dict[str, str]:
    """Name and SHA-256 of the public weights that a model of `config` stands on."""
    from SAMMixLib.networks.sam.lite_medsam import WEIGHTS_SHA256
    from SAMMixLib.networks.weights import PUBLIC_FILES

    backbone = config.model.backbone
    if backbone == LITE_MEDSAM:
        return {"name": LITE_MEDSAM, "sha256": WEIGHTS_SHA256}
    known = PUBLIC_FILES.get(backbone)
    return {"name": backbone, "sha256": known.sha256 if known else ""}


def load_base_weights(
    config: Config, path: str | Path | None, base: dict[str, str] | None = None
) -> dict[str, Tensor] | None:
    """The tensors that a model of `config` stands on, checked by hash where one is known.

    None for LiteMedSAM, whose weights :func:`SAMMixLib.method.sam_mix.build_model` finds in their package.

    Raises:
        SAMMixError: a ViT backbone's weights are not given, damaged, or other ones.
    """
    from SAMMixLib.networks.weights import load_tensors

    base = base or base_weights_of(config)
    if base["name"] == LITE_MEDSAM:
        if path is not None:
            raise SAMMixError(f"{path}: {LITE_MEDSAM} brings its own weights; leave --base-weights out")
        return None
    if path is None:
        raise SAMMixError(f"the backbone {base['name']} needs its public weights; give --base-weights FILE")
    return load_tensors(path, base.get("sha256") or None)


def open_bundle(folder: str | Path) -> Bundle:
    """Read and check a bundle's card.

    Raises:
        SAMMixError: no bundle there, a newer schema, or a card that does not hold what it should.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except OSError:
        raise SAMMixError(f"{folder}: no model bundle here ({CARD} is missing); see: sammix models list") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SAMMixError(f"{folder / CARD}: damaged ({error}); import the bundle again") from None
    schema = card.get("schema") if isinstance(card, dict) else None
    if not isinstance(schema, int):
        raise SAMMixError(f"{folder / CARD}: no SAMMix model card; import the bundle again")
    if schema > SCHEMA:
        raise SAMMixError(f"{folder}: bundle schema {schema} is newer than this SAMMix knows ({SCHEMA}); update SAMMix")
    kinds = {"name": str, "base": dict, "config": dict, "training": dict, "sha256": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(card.get(key), kind)]
    if wrong or not isinstance(card["base"].get("name"), str):
        raise SAMMixError(f"{folder / CARD}: {', '.join(wrong) or 'base'} missing or damaged; import the bundle again")
    bundle = Bundle(folder, card)
    _ = bundle.config, bundle.structure  # unreadable ones are refused here, not at the first use
    return bundle


def verify_bundle(bundle: Bundle) -> None:
    """Check every file against its hash.

    Raises:
        SAMMixError: a file is missing or differs.
    """
    from SAMMixLib.files import sha256_of

    for name in FILES:
        if not (bundle.folder / name).is_file():
            raise SAMMixError(f"{bundle.folder / name}: is missing; remove the bundle and import it again")
        if sha256_of(bundle.folder / name) != bundle.card["sha256"].get(name):
            raise SAMMixError(
                f"{bundle.folder / name}: changed since it was written; remove the bundle and import it again"
            )


def load_bundle(folder: str | Path, base_weights: str | Path | None = None, fold: bool = False) -> SAMMix:
    """The model of a bundle, in float32, on the CPU, ready to train on, or with `fold` to segment with.

    Args:
        base_weights: the file of a ViT backbone's public weights; LiteMedSAM's come with its package.
        fold: put the adapters into the encoder's own weights, which needs no peft.

    Raises:
        SAMMixError: the bundle is damaged, or the base weights are missing or not those it was trained on.
    """
    from SAMMixLib.method.sam_mix import build_folded, build_model
    from SAMMixLib.networks.lora import load_lora
    from SAMMixLib.networks.weights import load_strictly

    bundle = open_bundle(folder)
    verify_bundle(bundle)
    weights = load_base_weights(bundle.config, base_weights, bundle.card["base"])
    adapter, where = _tensors(bundle, ADAPTER), str(bundle.folder / ADAPTER)
    if fold:
        model = build_folded(bundle.config.model, weights, adapter, where)
    else:
        model = build_model(bundle.config.model, weights)
        load_lora(model.backbone.image_encoder, adapter, where)
    load_strictly(model.classifier, _tensors(bundle, CLASSIFIER), str(bundle.folder / CLASSIFIER))
    load_strictly(model.backbone.mask_decoder, _tensors(bundle, DECODER), str(bundle.folder / DECODER))
    return model.eval()


def _tensors(bundle: Bundle, name: str) -> dict[str, Tensor]:
    from SAMMixLib.networks.weights import load_tensors

    return {key: value.float() for key, value in load_tensors(bundle.folder / name).items()}
