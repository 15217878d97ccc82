"""The small feature pyramid: what a CamClassifier asks of its body, and that each pixel knows of the whole slice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from SAMMixLib.config import PRESETS
from SAMMixLib.method.cam import liver_logit
from SAMMixLib.models.build import build_classifier, build_model
from SAMMixLib.networks.classifiers.pyramid import Pyramid
from SAMMixLib.networks.classifiers.resnet38 import CamClassifier


def test_maps_are_a_quarter_of_the_slice_and_their_mean_is_the_logit():
    torch.manual_seed(0)
    classifier = CamClassifier(Pyramid(width=0.25)).eval()
    slices = torch.rand(2, 1, 64, 64)
    features, maps = classifier.body(slices), classifier(slices)
    assert features.shape == (2, classifier.body.features_channels, 16, 16) and maps.shape == (2, 2, 16, 16)
    pooled = features.mean(dim=(2, 3)) @ classifier.head.weight[:, :, 0, 0].T
    torch.testing.assert_close(liver_logit(maps), pooled[:, 1] - pooled[:, 0], rtol=1e-4, atol=1e-5)


def test_every_pixel_sees_the_whole_slice():
    torch.manual_seed(0)
    body = Pyramid(width=0.25).eval()
    slices = torch.rand(1, 1, 128, 128, requires_grad=True)
    body(slices)[0, :, 0, 0].sum().backward()
    assert slices.grad[0, 0, -16:, -16:].abs().max() > 0


@pytest.mark.slow
def test_a_model_is_built_with_it():
    config = replace(PRESETS["starter"].model, classifier="pyramid", classifier_width=0.25, prompt_threshold=0.0)
    model = build_model(config).eval()
    assert isinstance(build_classifier(config, model.backbone).body, Pyramid) and not model.shares_encoder
    with torch.inference_mode():
        output = model(torch.rand(1, 1, 256, 256))
    assert output.cams.shape == output.mask_logits.shape == (1, 256, 256)
