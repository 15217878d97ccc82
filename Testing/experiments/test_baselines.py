"""The baseline networks of Table 1, and the one trainer that all of them share."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from SAMMixLib.config import PRESETS, Config
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments import baselines_network, baselines_training
from SAMMixLib.experiments.baselines import train_baseline
from SAMMixLib.experiments.baselines_network import BASELINES, Baseline, NetworkPredictor, log_odds
from SAMMixLib.experiments.baselines_training import BEST, BaselinePlan, BaselineTrainer, RowBudget
from SAMMixLib.inference.device import Runtime
from SAMMixLib.networks.baselines.multimix import MultiMix
from SAMMixLib.networks.baselines.transunet import StandardisedConv2d, TransUNet
from SAMMixLib.networks.baselines.unet import build_unet
from SAMMixLib.training import loop
from SAMMixLib.training.checkpoint import write_checkpoint
from SAMMixLib.training.loaders import Batch
from SAMMixLib.training.sets import TrainingData
from SAMMixLib.training.validation import validation_scores

SIZE = 32


class Tiny(nn.Module):
    """Stands in for a network: the liver of `discs` is a matter of brightness and surroundings."""

    def __init__(self, classifies: bool) -> None:
        super().__init__()
        self.classifies = classifies
        self.body = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Conv2d(8, 1, 3, padding=1)

    def classify(self, x):
        logit = self.head(self.body(x)).amax(dim=(2, 3))
        return torch.cat([-logit, logit], dim=1)

    def forward(self, x):
        masks = self.head(self.body(x))
        return (masks, self.classify(x)) if self.classifies else masks


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Tiny networks under the names of `BASELINES`."""
    for name, baseline in BASELINES.items():
        stand_in = replace(baseline, build=lambda c=baseline.classifies: Tiny(c), learning_rate=3e-2, batch_size=4)
        monkeypatch.setitem(baselines_network.BASELINES, name, stand_in)


def config(**training) -> Config:
    starter = PRESETS["starter"]
    settings = {"augment": False, "validation_slices": None} | training
    return replace(starter, model=replace(starter.model, size=SIZE), training=replace(starter.training, **settings))


def discs(patient: str, seed: int, count: int = 12) -> SliceDataset:
    """Noisy slices; two of three show a bright disc."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for n, mask in enumerate(masks):
        if n % 3:
            y, x = random.integers(10, 22, 2)
            mask[(rows - y) ** 2 + (columns - x) ** 2 < 40] = 1
    return SliceDataset(
        images=(random.normal(20, 15, masks.shape) + 90 * masks).astype(np.int16),
        labels=masks.any(axis=(1, 2)),
        masks=masks,
        has_mask=np.ones(count, bool),
        patients=np.array([patient] * count),
        indices=np.arange(count),
        spacings=np.full((count, 2), np.nan, np.float32),
    )


@pytest.fixture(scope="module")
def sets() -> tuple[SliceDataset, SliceDataset]:
    return discs("a", 0), discs("b", 1, 6)


@pytest.mark.parametrize(
    ("build", "parameters"), [(build_unet, 1_625_161), (TransUNet, 105_322_146), (MultiMix, 1_965_173)]
)
def test_parameter_counts(build, parameters):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build().parameters()) == parameters


def test_the_position_embedding_is_what_size_changes():
    with torch.device("meta"):
        smaller = TransUNet(224)
    assert sum(parameter.numel() for parameter in smaller.parameters()) == 105_322_146 - 46_080


def test_unet_and_multimix_reach_every_parameter_they_use():
    slices = torch.rand(2, 1, 32, 32)
    for network in (build_unet(), MultiMix()):
        output = network(slices)
        sum(part.square().sum() for part in (output if isinstance(output, tuple) else (output,))).backward()
        idle = {name for name, parameter in network.named_parameters() if parameter.grad is None}
        assert idle == ({"uncalled.weight", "uncalled.bias"} if isinstance(network, MultiMix) else set())


def test_transunet_has_the_stages_of_the_paper():
    torch.manual_seed(0)
    network = TransUNet(32).eval()
    assert [len(stage) for stage in network.stages] == [3, 4, 9]
    with torch.no_grad():
        assert network(torch.rand(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_standardised_kernels_ignore_shift_and_scale():
    torch.manual_seed(0)
    convolution, x = StandardisedConv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    before = convolution(x)
    with torch.no_grad():
        convolution.weight.mul_(3).add_(0.5)
    assert torch.allclose(convolution(x), before, rtol=1e-2, atol=1e-2)


def test_multimix_saliency_is_the_gradient_of_the_log_odds():
    torch.manual_seed(0)
    network, x = MultiMix().double().eval(), torch.rand(1, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        saliency, masks = network.saliency(x), network(x)[0]
        network.saliency = torch.zeros_like
        assert not torch.equal(network(x)[0], masks), "the mask must depend on the saliency"
        slopes = []
        for place in ((9, 5), (20, 17)):
            nudge = torch.zeros_like(x)
            nudge[0, 0][place] = 1e-6
            up, down = (torch.diff(network.classify(x + sign * nudge)).item() for sign in (1, -1))
            slopes.append(abs(up - down))
    assert saliency.shape == x.shape and saliency.max() == 1 and saliency.min() >= 0
    assert saliency[0, 0, 9, 5] / saliency[0, 0, 20, 17] == pytest.approx(slopes[0] / slopes[1], rel=1e-3)


def test_log_odds_of_one_and_two_channels():
    two = torch.randn(3, 2, 4, 4)
    assert torch.allclose(log_odds(two).sigmoid(), two.softmax(dim=1)[:, 1], atol=1e-6)
    assert torch.equal(log_odds(two[:, :1]), two[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BASELINES))
def test_training_learns_and_its_best_weights_are_read_back(tiny, sets, tmp_path, name):
    train, validation = sets
    seen = []
    plan, data = BaselinePlan(name, RowBudget(epochs=60), config()), TrainingData(train, validation)
    predictor = train_baseline(plan, data, tmp_path, Runtime(progress=lambda *at: seen.append(at)))
    found = predictor(validation)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = [line["score"] for line in lines if "score" in line]
    assert len(scores) == baselines_training.VALIDATIONS
    assert validation_scores(found.masks, validation)["score"] == pytest.approx(max(scores))
    assert max(scores) > 0.8
    assert found.masks.shape == validation.masks.shape and found.masks.dtype == bool and found.boxes == []
    assert ("train", 1000, 1000) in seen
    if not BASELINES[name].classifies:
        assert np.array_equal(found.p_liver >= 0.5, found.masks.any(axis=(1, 2)))
    # A run that is over is only read.
    changed = (tmp_path / BEST).stat().st_mtime_ns
    again = train_baseline(plan, data, tmp_path)
    assert np.array_equal(again(validation).masks, found.masks)
    assert (tmp_path / BEST).stat().st_mtime_ns == changed


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(tiny, sets, tmp_path):
    plan = BaselinePlan("multimix", RowBudget(epochs=4), config(augment=True))
    train_baseline(plan, TrainingData(*sets), tmp_path / "whole")
    folder = tmp_path / "resumed"
    folder.mkdir()
    trainer = BaselineTrainer(plan, TrainingData(*sets), folder)
    for step in range(5):  # what a run does before it is killed between two checkpoints
        trainer.train_step(step)
        trainer.state.step += 1
        if trainer.spent == 0.25:
            write_checkpoint({**trainer.checkpoint(), "run": vars(trainer.state)}, folder)
    train_baseline(plan, TrainingData(*sets), folder)
    states = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (tmp_path / "whole", folder)]
    assert states[0]["run"]["step"] == states[1]["run"]["step"] == 12
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name]), name


@pytest.mark.slow
def test_a_run_of_another_seed_is_refused(tiny, sets, tmp_path):
    plans = [BaselinePlan("unet", RowBudget(epochs=1), config(seed=seed)) for seed in (0, 1)]
    train_baseline(plans[0], TrainingData(*sets), tmp_path)
    with pytest.raises(SAMMixError, match="has seed 0, not 1"):
        train_baseline(plans[1], TrainingData(*sets), tmp_path)


@pytest.mark.slow
def test_processor_seconds_end_a_run(tiny, sets, tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(loop.time, "process_time", lambda: next(clock))
    trainer = BaselineTrainer(BaselinePlan("unet", RowBudget(seconds=7.0), config()), TrainingData(*sets), tmp_path)
    trainer.run()
    assert trainer.state.step == 7 and trainer.state.seconds == 7.0
    assert (tmp_path / BEST).exists()


def test_only_masks_that_are_given_are_seen(tiny, sets, tmp_path):
    """Zeros stand for a mask that is put aside; they must not teach that there is no liver."""
    train, validation = sets
    labelled = np.flatnonzero(train.labels)[:2]
    few = replace(train, has_mask=np.isin(np.arange(len(train)), labelled))
    trainer = BaselineTrainer(
        BaselinePlan("unet", RowBudget(epochs=1), config()), TrainingData(few, validation), tmp_path
    )
    assert set(trainer.outlined.dataset.indices) == set(labelled)
    assert not trainer.others.dataset.labels.any()
    joint = BaselineTrainer(
        BaselinePlan("multimix", RowBudget(epochs=1), config()), TrainingData(few, validation), tmp_path
    )
    assert len(joint.others.dataset) == len(few) and set(joint.outlined.dataset.indices) == set(labelled)
    every = joint.others(0)
    changed = Batch(every.slices, every.labels, 1 - every.masks, every.has_liver_mask)
    joint.network.eval()
    values = [joint.joint_losses(joint.outlined(0), batch) for batch in (every, changed)]
    assert values[0] == values[1]


def test_losses_are_weighted_as_the_papers_say(sets, tmp_path, monkeypatch):
    """A network that answers 0 everywhere: cross entropy log 2, Dice of a mask of one half."""
    zero = nn.Conv2d(1, 2, 1)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    for dice, cross_entropy in ((1.0, 1.0), (0.5, 0.5)):
        flat = Baseline(lambda: zero, dice, cross_entropy, 1e-3, 4)
        monkeypatch.setitem(baselines_network.BASELINES, "unet", flat)
        trainer = BaselineTrainer(BaselinePlan("unet", RowBudget(epochs=1), config()), TrainingData(*sets), tmp_path)
        outlined, empty = trainer.outlined(0), trainer.others(0)
        share = outlined.masks.float().sum().item() / (4 * SIZE**2)
        loss = trainer.losses(outlined, empty)["segmentation_loss"].item()
        expected_dice = 1 - 2 * 0.5 * share / (0.5 + share)
        assert loss == pytest.approx(dice * expected_dice + cross_entropy * np.log(2), rel=1e-4)


def test_bad_requests_are_refused(sets, tmp_path):
    with pytest.raises(SAMMixError, match=r"'vnet' is unknown; take one of unet, transunet, multimix, nnunet"):
        train_baseline(BaselinePlan("vnet", RowBudget(epochs=1)), TrainingData(*sets), tmp_path)
    for wrong in ({}, {"epochs": 1, "seconds": 1.0}):
        with pytest.raises(SAMMixError, match="give one of the two"):
            RowBudget(**wrong)
    with pytest.raises(SAMMixError, match="patient a is in"):
        train_baseline(BaselinePlan("unet", RowBudget(epochs=1)), TrainingData(sets[0], sets[0]), tmp_path)


def test_predictor_windows_and_autocasts(sets):
    """A network that passes its input on sees the window's middle as 0.5."""

    class Above(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return x - self.offset

    model = config().model
    found = NetworkPredictor(Above(), model, Runtime(batch_size=4))(sets[1])
    assert np.array_equal(found.masks, sets[1].images >= model.window_level)
