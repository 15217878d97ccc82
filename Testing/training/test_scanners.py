"""Augmentation as other scanners would look: what it may change, and what it may not."""

from __future__ import annotations

import pytest
import torch

from SAMMixLib.config import Config
from SAMMixLib.errors import SAMMixError
from SAMMixLib.training.scanners import DARKEST, imitate_scanners


def slices(n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """A body of 40 HU in air, with a liver of 100 HU on the left of the slice."""
    hu, masks = torch.full((n, 64, 64), -1000.0), torch.zeros(n, 64, 64)
    hu[:, 12:52, 8:56] = 40.0
    masks[:, 20:44, 12:30] = 1
    hu[masks > 0] = 100.0
    return hu, masks


def run(seed: int, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    return imitate_scanners(*slices(), torch.Generator().manual_seed(seed), size)


def test_the_same_seed_gives_the_same_slices_and_every_slice_differs():
    hu, masks = run(0)
    again, other = run(0), run(1)
    assert torch.equal(hu, again[0]) and torch.equal(masks, again[1]) and not torch.equal(hu, other[0])
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks)


def test_masks_stay_masks_and_the_liver_stays_on_its_side():
    hu, masks = run(2)
    assert hu.shape == masks.shape == (24, 64, 64) and torch.isfinite(hu).all()
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    columns = torch.arange(64.0)
    centres = (masks.sum(dim=1) * columns).sum(dim=1) / masks.sum(dim=(1, 2))
    assert (centres < 34).all()


def test_the_liver_gets_dark_and_bright_while_the_body_keeps_its_order():
    hu, masks = run(3)
    liver = torch.stack([of_slice[mask > 0].median() for of_slice, mask in zip(hu, masks, strict=True)])
    assert liver.min() < 60 and liver.max() > 120 and liver.min() > DARKEST


def test_some_slices_lose_their_contrast_medium():
    hu, masks = slices(200)
    hu[masks > 0] = 40.0
    hu[:, 20:44, 34:50] = 180.0  # a kidney
    after, _ = imitate_scanners(hu, masks, torch.Generator().manual_seed(5), 64)
    kidney = after[:, 30:34, 40:44].mean(dim=(1, 2)) - after[:, 14:17, 30:34].mean(dim=(1, 2))
    assert 0.1 < (kidney < 70).float().mean() < 0.5


def test_coarse_slices_are_the_same_slices():
    fine, coarse = run(4)[1], run(4, size=32)[1]
    share = coarse.mean(dim=(1, 2)) / fine.mean(dim=(1, 2))
    assert coarse.shape == (24, 32, 32) and (share - 1).abs().max() < 0.3


def test_it_takes_the_place_of_the_other_augmentation():
    for other in ({"augment": True}, {"views": 4}):
        with pytest.raises(SAMMixError, match="scanners"):
            Config.from_dict({"training": {"scanners": True} | other})
