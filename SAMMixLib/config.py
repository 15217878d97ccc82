"""Every choice that the paper leaves open, as plain data that a user can print, edit and store.

The defaults follow the text of the paper; :data:`PRESETS` holds the named deviations. ``sammix train --print-config``
writes a preset as JSON, ``sammix train --config FILE`` reads it back.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import read_json

LITE_MEDSAM = "lite_medsam"
CHOICES = {
    "classifier": ("resnet38", "pyramid", "encoder_head"),
    "backbone": (LITE_MEDSAM, "sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam_vit_b"),
    "regions": ("one", "largest", "each"),
    "lora_targets": ("q,v", "qkv"),
    "boxes": ("cam", "truth", "mixed"),
    "adapts": ("lora,decoder", "decoder", "lora"),
    "classification": ("focal", "cross_entropy"),
    "pooling": ("average", "peak"),
    "cam_loss": ("dice", "outline"),
    "gate": ("hysteresis", "interval"),
}


FORMER_NAMES = {"presence": "prompt_threshold"}
"""Entries in bundles and configs written by earlier versions."""

LEAST = {
    "size": 32, "lora_rank": 1, "lora_blocks": 1, "backbone_size": 64, "labelled_slices": 0, "seed": 0, "epochs": 1,
    "steps": 1, "batch_size": 1, "mask_batch_size": 1, "validation_slices": 1, "views": 0, "labelled_views": 0,
    "padding": 0,
    "mask_index": 0, "smooth_boxes": 0, "refine": 0, "gap_mm": 0,
    "widest_gap_mm": 0, "alike": 0,
}  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """Fig. 1 of the paper: what the model is made of."""

    window_width: float = 400.0  # HU
    window_level: float = 40.0  # HU
    size: int = 256  # pixels of the square slice

    classifier: str = "resnet38"  # or a small feature pyramid, or a head on the SAM encoder's own features
    classifier_width: float = 1.0  # 1 is the paper's ResNet38, or the pyramid as it is
    pooling: str = "average"  # of the class maps to p(liver); or of their peak, which small cross-sections reach, too
    cam_difference: bool = False  # liver minus background instead of the liver map
    omega: float = 0.5  # of the largest CAM value: the threshold of the binary mask
    # Below this p(liver) a slice on its own gets no prompt and an empty mask: a fallback box would invent liver.
    # Training puts in the best on validation slices.
    prompt_threshold: float = 0.5

    regions: str = "one"  # of the mask that get a box
    padding: float = 0.0  # pixels added on each side of the box
    dense_mask: bool = False  # the CAM mask as SAM's dense prompt, drawn in the figure, not in the text

    backbone: str = "sam_vit_b"
    backbone_size: int = 256  # the ViT backbones' own input; LiteMedSAM is native 256
    multimask: bool = True
    mask_index: int = 2  # m3 of Fig. 1; 0 with multimask off

    lora_rank: int = 8
    lora_targets: str = "q,v"
    lora_blocks: int | None = None  # the last so many blocks; None is all of them


@dataclass(frozen=True)
class VolumeConfig:
    """What the product adds for whole scans (the paper looks at slices). Each step can be switched off."""

    # Along z. Hysteresis: a run of slices with p(liver) >= `gate_low` passes if one of them reaches `gate_high`.
    # Interval: the one run that is the likeliest, by the log-odds of its slices over those of `gate_low`.
    gate: str = "hysteresis"
    gate_high: float = 0.5
    gate_low: float = 0.5
    smooth_boxes: int = 0  # each side: median over so many slices on either side
    refine: int = 0  # decoder passes with the box of the last mask
    # Of thin slices the networks see only so many that they lie this close; 0 shows them every slice. Thicker ones are
    # all seen, whatever the three that follow say.
    gap_mm: float = 0.0
    classify_between: bool = False  # the classifier sees every slice; else thin ones only where it is not sure
    widest_gap_mm: float = 8.0  # SAM first looks this far apart, then down to `gap_mm` where masks differ
    alike: float = 0.88  # Dice of neighbouring masks from which SAM does not look in between
    largest_component: bool = True  # of the 3D mask


@dataclass(frozen=True)
class TrainingConfig:
    """Joint training: the classification loss plus the segmentation loss."""

    labelled_slices: int | None = 50  # masks used; None is every mask there is
    seed: int = 0
    epochs: int = 10  # over the image-level labels
    steps: int | None = None  # in place of epochs; validated after every fifth of them
    batch_size: int = 30  # slices for the classification loss
    mask_batch_size: int = 30  # labelled slices for the segmentation loss
    learning_rate: float = 1e-3  # of the classifier; 0 leaves it as it is
    pretrained_learning_rate: float = 1e-3  # LoRA and decoder
    warmup: float = 0.0  # share of the steps; then the rate follows a cosine. 0 keeps it constant, as the paper does
    weight_decay: float = 0.0
    segmentation_weight: float = 1.0  # lambda
    classification: str = "focal"  # the paper's, or cross entropy: a p(liver) that means what it says
    cam_weight: float = 0.0  # the liver map against the mask, on labelled slices only
    cam_loss: str = "dice"  # of the map as it is, or of the outline that the threshold draws in it
    cross_entropy: float = 0.0  # share of cross entropy beside Dice
    adapts: str = "lora,decoder"  # what learns of SAM
    boxes: str = "cam"  # training boxes: from the CAM, from the mask with jitter, or half and half
    jitter: float = 0.1  # of the box's extent
    augment: bool = False
    scanners: bool = False  # in place of `augment`: in HU, as other scanners, phases and patients would look
    views: int = 0  # fixed views of a slice, whose frozen features are computed once; 0 augments anew at every step
    labelled_views: int = 0  # of each labelled slice, for the losses on masks; 0 is `views`. A few masks want many
    weight_average: float = 0.0  # decay of the moving average of the weights that is validated and kept; 0 is off
    validation_slices: int | None = None  # at most so many after each epoch; None is all


@dataclass(frozen=True)
class Config:
    """A model, how it segments volumes, and how it was or will be trained."""

    model: ModelConfig = field(default_factory=ModelConfig)
    volume: VolumeConfig = field(default_factory=VolumeConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: str = "config") -> Config:
        """The config of nested plain dicts; missing entries keep their default.

        Raises:
            SAMMixError: an unknown entry, an unknown choice, a value of the wrong type or one without effect, named
                with `source`.
        """
        parts = {part.name: part.default_factory for part in dataclasses.fields(cls)}
        if not isinstance(data, dict) or not all(isinstance(part, dict) for part in data.values()):
            raise SAMMixError(f"{source}: a config is a JSON object with the parts {', '.join(parts)}, each an object")
        unknown = sorted(set(data) - set(parts))
        if unknown:
            raise SAMMixError(f"{source}: unknown part {unknown[0]!r}; known are {', '.join(parts)}")
        config = cls(**{name: _part(kind, data.get(name, {}), f"{source}: {name}") for name, kind in parts.items()})
        if config.training.scanners and config.training.augment:
            raise SAMMixError(f"{source}: training.scanners takes the place of training.augment; set one of them")
        if config.training.scanners and config.training.views:
            raise SAMMixError(f"{source}: training.scanners has no effect with views; set views 0")
        if config.training.labelled_views and not config.training.views:
            raise SAMMixError(f"{source}: training.labelled_views has no effect with views 0; set views, too")
        return config


def _part(kind: Any, values: dict[str, Any], source: str) -> Any:
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    values = {FORMER_NAMES.get(name, name): value for name, value in values.items()}
    for name, value in values.items():
        if name not in fields:
            raise SAMMixError(f"{source}: unknown entry {name!r}; known are {', '.join(fields)}")
        if name in CHOICES and value not in CHOICES[name]:
            raise SAMMixError(f"{source}.{name}: {value!r} is none of {', '.join(CHOICES[name])}")
        if not _is_of(value, str(fields[name].type)):
            raise SAMMixError(f"{source}.{name}: {value!r} should be {fields[name].type}")
        if value is not None and value < LEAST.get(name, value):
            raise SAMMixError(f"{source}.{name}: {value!r} should be at least {LEAST[name]}")
    return kind(**values)


def _is_of(value: Any, type_name: str) -> bool:
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    wanted = type_name.removesuffix(" | None")
    if value is None:
        return wanted != type_name
    return isinstance(value, kinds[wanted]) and (wanted == "bool" or not isinstance(value, bool))


def read_config(path: str | Path) -> Config:
    """The config in a JSON file.

    Raises:
        SAMMixError: the file is missing, is no JSON, or holds an unknown entry.
    """
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise SAMMixError(f"{path}: cannot be read as a config: {error}") from None
    return Config.from_dict(data, str(path))


_PAPER = Config()
_STARTER = Config(
    model=ModelConfig(
        # The window in which the starter's training slices are stored: nothing outside it was ever seen.
        window_width=200.0,
        window_level=60.0,
        classifier_width=1 / 8,
        backbone=LITE_MEDSAM,
        multimask=False,
        mask_index=0,
        lora_targets="qkv",
        lora_blocks=2,  # the last stage: gradients through all ten blocks triple the time of a step on a CPU
        padding=5.0,
    ),
    # Chosen on the validation patients: the liver's tips are small and unsure, but next to slices that are sure.
    volume=VolumeConfig(gate_high=0.7, gate_low=0.28, gap_mm=4.0),
    training=TrainingConfig(
        labelled_slices=None,
        epochs=3,
        batch_size=16,
        mask_batch_size=2,
        learning_rate=1e-3,
        pretrained_learning_rate=2e-4,
        warmup=0.05,
        cam_weight=1.0,
        cross_entropy=1.0,
        boxes="mixed",
        augment=True,
        weight_average=0.99,
        validation_slices=96,
    ),
)

PRESETS = {
    "paper": _PAPER,
    "figure": dataclasses.replace(_PAPER, model=dataclasses.replace(_PAPER.model, dense_mask=True)),
    "starter": _STARTER,
}

_FINE = TrainingConfig(
    batch_size=8,
    mask_batch_size=4,
    # The classifier stays as it is. A few tips of the liver that it missed would open its gate on other scanners: after
    # 500 steps at 1e-5 slices without liver got masks there, even with its right answers as targets.
    learning_rate=0.0,
    pretrained_learning_rate=1e-4,
    warmup=0.1,
    cross_entropy=1.0,
    boxes="mixed",
    augment=True,
    weight_average=0.95,
)
FINE_TUNING = {
    # Features of the frozen part are computed once, so a step costs the last blocks and the decoder only.
    "quick": dataclasses.replace(_FINE, steps=60, views=4),
    # New augmentation at every step.
    "full": dataclasses.replace(_FINE, steps=500, batch_size=16, weight_average=0.99),
}
