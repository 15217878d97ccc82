"""Eq. 3 to 9: CAM, mask, boxes, losses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from SAMMixLib.method.cam import class_activation_map, liver_logit
from SAMMixLib.method.losses import activation_loss, classification_loss, outline_loss, segmentation_loss
from SAMMixLib.method.prompts import binary_mask, bounding_boxes, jitter
from SAMMixLib.networks.classifiers.resnet38 import CamClassifier, ResNet38


def test_cam_equals_gradient_grad_cam_up_to_a_constant():
    torch.manual_seed(0)
    classifier = CamClassifier(ResNet38(width=1 / 16)).eval()
    slices = torch.rand(2, 1, 64, 64)
    features = classifier.body(slices).detach().requires_grad_()
    maps = classifier.head(features)
    maps.mean(dim=(2, 3))[:, 1].sum().backward()
    weights = features.grad.mean(dim=(2, 3), keepdim=True)  # Grad-CAM's alpha
    grad_cam = (weights * features).sum(dim=1)
    expected = maps[:, 1].detach() / (features.shape[2] * features.shape[3])
    torch.testing.assert_close(grad_cam, expected, rtol=1e-4, atol=1e-6)


def test_cam_is_normalised_and_zero_without_a_positive_value():
    maps = torch.tensor([[[[0.0]], [[-1.0]]], [[[0.5]], [[2.0]]]]).expand(2, 2, 4, 4).clone()
    maps[1, 1, 0, 0] = 4.0
    cam = class_activation_map(maps, 16)
    assert cam.shape == (2, 16, 16)
    assert cam[0].max() == 0 and cam[1].max() == 1 and cam.min() >= 0
    assert not binary_mask(cam, 0.5)[0].any()
    torch.testing.assert_close(liver_logit(maps)[0], torch.tensor(-1.0))


def test_a_tip_of_the_liver_reaches_the_peak_and_vanishes_in_the_average():
    maps = torch.full((2, 2, 64, 64), -3.0)
    maps[:, 0] = 0.0
    maps[1, 1, 10:12, 10:12] = 5.0
    average, peak = liver_logit(maps), liver_logit(maps, "peak")
    assert (average < -2.9).all() and peak.tolist() == [-3.0, 5.0]
    assert liver_logit(maps[..., :5, :5], "peak").tolist() == [-3.0, -3.0], "one pixel at least"


def test_threshold_is_omega_times_the_maximum_and_includes_it():
    cam = torch.tensor([[[0.4, 0.5, 1.0]]])
    assert binary_mask(cam, 0.5).tolist() == [[[False, True, True]]]


def test_boxes_of_one_largest_and_each_region():
    mask = torch.zeros(2, 20, 30, dtype=torch.bool)
    mask[0, 2:5, 3:7] = True
    mask[0, 10:18, 12:25] = True
    one, largest, each = (bounding_boxes(mask, regions) for regions in ("one", "largest", "each"))
    assert one[0].tolist() == [[3, 2, 25, 18]]
    assert largest[0].tolist() == [[12, 10, 25, 18]]
    assert each[0].tolist() == [[3, 2, 7, 5], [12, 10, 25, 18]]
    assert all(boxes[1].shape == (0, 4) for boxes in (one, largest, each))
    assert bounding_boxes(mask, "one", padding=5)[0].tolist() == [[0, 0, 30, 20]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20), st.integers(0, 9))
def test_a_box_holds_its_mask_and_stays_in_the_slice(x, y, width, height, padding):
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, y : y + height, x : x + width] = True
    x0, y0, x1, y1 = bounding_boxes(mask, padding=padding)[0][0].tolist()
    rows, columns = mask[0].nonzero().unbind(1)
    assert 0 <= x0 <= columns.min() and columns.max() + 1 <= x1 <= 40
    assert 0 <= y0 <= rows.min() and rows.max() + 1 <= y1 <= 40


def test_jitter_moves_each_side_by_at_most_its_share():
    boxes = torch.tensor([[50.0, 60.0, 150.0, 100.0]])
    moved = jitter(boxes, 0.1, 256, torch.Generator().manual_seed(0))
    assert not torch.equal(moved, boxes)
    assert ((moved - boxes).abs() <= torch.tensor([10.0, 4.0, 10.0, 4.0])).all()


def test_focal_loss_is_eq_3():
    logit, label = torch.tensor([0.3, -1.2]), torch.tensor([1.0, 0.0])
    p = torch.where(label > 0, logit.sigmoid(), 1 - logit.sigmoid())
    alpha = torch.where(label > 0, 0.25, 0.75)
    expected = (-alpha * (1 - p) ** 2 * p.log()).mean()
    torch.testing.assert_close(classification_loss(logit, label), expected)


def test_dice_loss_is_eq_9_and_cross_entropy_is_added():
    logits, mask = torch.tensor([[[20.0, 20.0], [-20.0, -20.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    assert segmentation_loss(logits, mask).item() == pytest.approx(1 - 2 / 3, abs=1e-4)
    expected = 1 - 2 / 3 + nn.functional.binary_cross_entropy_with_logits(logits, mask).item()
    assert segmentation_loss(logits, mask, 1.0).item() == pytest.approx(expected, abs=1e-4)


def test_activation_loss_is_low_where_the_map_covers_the_mask():
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    maps = torch.zeros(1, 2, 8, 8)
    maps[:, 1, 2:6, 2:6] = 3
    assert activation_loss(maps, mask) < 0.01
    assert activation_loss(maps.flip(1), mask) > 0.9


def test_outline_loss_reaches_the_liver_where_the_map_is_negative():
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 4:28] = 1
    maps = torch.full((1, 2, 8, 8), -1.0)
    maps[:, 1, 2:6, 1:4] = 2.0  # half of the liver; the other half is missed
    maps.requires_grad_()
    outline_loss(maps, mask, 0.5).backward()
    missed = maps.grad[0, 1, 2:6, 4:7]
    assert (missed < 0).all()  # a step against the gradient raises the map there
    assert not maps.grad[:, 0].any()  # the logits stay free: the other map answers for them
    right = torch.where(mask[:, None, ::4, ::4] > 0, 2.0, -1.0).expand(1, 2, 8, 8)
    assert outline_loss(right, mask, 0.5) < 0.1 < outline_loss(maps, mask, 0.5)


def test_cross_entropy_in_place_of_focal_loss():
    logit, label = torch.tensor([0.3, -1.0]), torch.tensor([1.0, 0.0])
    expected = nn.functional.binary_cross_entropy_with_logits(logit, label)
    torch.testing.assert_close(classification_loss(logit, label, "cross_entropy"), expected)
    assert classification_loss(logit, label) < expected
