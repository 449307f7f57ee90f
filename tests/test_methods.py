"""IPCE, LIQE, CLIP-IQA and CLIPScore against their plain forms; and what every method of the table must hold."""

import copy
import json
import re
from pathlib import Path

import method_oracles as oracles
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import random_clip
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.plain import openai_module
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.openai import openai_clip
from mgs.backbones.table import load_backbone
from mgs.cli import app
from mgs.config import Config, ModelConfig, TrainConfig
from mgs.config_files import load_config, load_run
from mgs.datasets.facts import DATASETS
from mgs.datasets.samples import Sample
from mgs.dimensions import Prompt
from mgs.engine.engine import make_engine
from mgs.engine.loader import Loader, epoch_order
from mgs.errors import UserError
from mgs.images.cache import ImageCache
from mgs.images.cuts import Cuts, Draw, all_corners, cut_views
from mgs.images.decode import read_image
from mgs.machine import Machine
from mgs.methods.clip_iqa_plus import CLIPIQAPlusOptions
from mgs.methods.ipce import TargetOptions
from mgs.methods.liqe import LIQEOptions
from mgs.methods.losses import absolute_error, fidelity
from mgs.methods.table import METHODS, make_method
from mgs.recipes import test as testing
from mgs.recipes import train as training
from mgs.scoring.loading import open_bare
from mgs.scoring.scorer import Scorer
from mgs.training.find_checkpoint import newest_checkpoint
from mgs.training.trainer import Trainer

CONFIGS = Path(__file__).parents[1] / "configs" / "methods"
CPU = Machine(torch.device("cpu"), torch.float32)
PROMPT = '"a river in a forest", painted'
SIZES = {"square": (512, 512), "small": (300, 470), "wide": (1100, 620), "large": (1000, 900)}


@pytest.fixture(scope="module")
def clip():
    return random_clip(size=224, patch=32, width=64, layers=2, embed=32)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, (width, height) in SIZES.items():
        small = np.random.default_rng(width).integers(0, 256, (9, 13, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height), Image.BICUBIC).save(folder / f"{name}.png")
    return folder


def engine_of(clip, method, options=None):
    config = Config(method=method, options=options, model=ModelConfig(frozen_blocks=0))
    engine = make_engine(make_method(CLIPBackbone(copy.deepcopy(clip), "test"), config), config, CPU)
    engine.method.eval()
    return engine


@torch.no_grad()
def score(engine, path, prompt=PROMPT):
    picture = read_image(path, engine.cuts.fit)
    return {name: value.item() for name, value in engine.score(engine.stage([picture], [Prompt(prompt)])).items()}


@pytest.mark.parametrize("name", SIZES)
def test_ipce_equals_its_plain_form(clip, pictures, name):
    engine = engine_of(clip, "ipce", TargetOptions("correspondence"))
    found = score(engine, pictures / f"{name}.png")
    expected = oracles.ipce(clip, Image.open(pictures / f"{name}.png"), PROMPT)
    assert found == {"correspondence": pytest.approx(expected, abs=5e-5)}


@pytest.mark.parametrize("name", ["square", "wide", "large"])
@pytest.mark.parametrize("form", ["quality", "full"])
def test_liqe_equals_its_plain_form(clip, pictures, name, form):
    engine, path = engine_of(clip, "liqe", LIQEOptions("quality", form)), pictures / f"{name}.png"
    found, expected = score(engine, path), oracles.liqe(clip, Image.open(path), form)
    if form == "full":
        expected, *named = expected
        assert [words[int(found.pop(label))] for label, words in engine.method.labels.items()] == named
    assert found == {"quality": pytest.approx(1.25 * (expected - 1), abs=5e-5)}  # 1-5 on 0-5


@pytest.mark.parametrize("name", SIZES)
def test_clip_iqa_and_clip_score_equal_their_plain_forms(clip, pictures, name):
    path = pictures / f"{name}.png"
    picture = Image.open(path)
    pairs = {"quality": ("Good photo.", "Bad photo."), "authenticity": ("Natural photo.", "Synthetic photo.")}
    expected = {dimension: 5 * oracles.clip_iqa(clip, picture, *pair) for dimension, pair in pairs.items()}
    expected["overall"] = expected["quality"]
    assert score(engine_of(clip, "clip-iqa"), path) == pytest.approx(expected, abs=5e-5)
    expected = 2 * oracles.clip_score(clip, picture, PROMPT)  # 0-2.5 on 0-5
    assert score(engine_of(clip, "clip-score"), path) == {"correspondence": pytest.approx(expected, abs=5e-5)}


def test_clip_iqa_plus_equals_its_plain_form_with_a_published_context(clip, pictures, tmp_path):
    context = torch.randn(16, 64, generator=torch.Generator().manual_seed(5)) * 0.3
    torch.save(context.half(), tmp_path / "bare.pt")
    state = {"generator.clipmodel_0.prompt_learner.ctx": context, "step_counter": torch.zeros(1)}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "mmcv.pt")
    path = pictures / "wide.png"
    for file, tolerance in (("bare.pt", 2e-3), ("mmcv.pt", 5e-5)):
        engine = engine_of(clip, "clip-iqa-plus", CLIPIQAPlusOptions("authenticity", str(tmp_path / file)))
        expected = 5 * oracles.clip_iqa_plus(clip, Image.open(path), context)
        assert score(engine, path) == {"authenticity": pytest.approx(expected, abs=tolerance)}
    marks = set()
    for content in (context, context + 1, context):  # a job that resumes must notice another content of the same file
        torch.save(content, tmp_path / "bare.pt")
        options = CLIPIQAPlusOptions("quality", str(tmp_path / "bare.pt"))
        backbone = CLIPBackbone(copy.deepcopy(clip), "test")
        marks.add(open_bare(backbone, CPU, "clip-iqa-plus", options)[1].fingerprint)
    assert len(marks) == 2
    torch.save(torch.zeros(16, 512), tmp_path / "wide.pt")
    (tmp_path / "text.pt").write_text("no tensor")
    for file, problem in (
        ("wide.pt", r"shape \(16, 512\), not 16 vectors"),
        ("text.pt", "no context"),
        ("x", "no such"),
    ):
        with pytest.raises(UserError, match=rf"options\.context=.*{file}: .*{problem}"):
            engine_of(clip, "clip-iqa-plus", CLIPIQAPlusOptions("quality", str(tmp_path / file)))


def test_clip_iqa_sees_pictures_at_their_own_size_with_a_resnet(pictures, tmp_path):
    torch.manual_seed(3)
    module = openai_clip().model.CLIP(32, 64, (1, 1, 1, 1), 16, None, 77, 49408, 64, 1, 2).eval()
    for norm in (one for one in module.visual.modules() if isinstance(one, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1), norm.running_var.uniform_(0.5, 2), norm.weight.data.uniform_(0.5, 2)
    save_file(module.state_dict(), tmp_path / "rn.safetensors")
    backbone = load_backbone(str(tmp_path / "rn.safetensors"))
    config = Config(method="clip-iqa")
    engine = make_engine(make_method(backbone, config), config, CPU)
    engine.method.eval()
    module.visual.attnpool.positional_embedding.data = torch.zeros(1, 512)  # which any number of places can add
    scale = module.logit_scale.exp().item()
    names = ["square.png", "wide.png", "square.png", "small.png"]  # one batch of several sizes
    read = [read_image(pictures / name, engine.cuts.fit) for name in names]
    with torch.no_grad():
        batch = engine.stage(read, [Prompt("")] * len(names))
        found = engine.score(batch)["quality"]
    for i, position in enumerate(batch.order):
        view = oracles.to_normal(Image.open(pictures / names[position]))
        assert view.shape[1:] == read[position].shape[1:]
        view = oracles.image_vector(module, view)
        good, bad = (scale * view @ oracles.text_vector(module, f"{word} photo.") for word in ("Good", "Bad"))
        assert found[i].item() == pytest.approx(5 * oracles.softmax([good, bad])[0], abs=1e-4)


def test_losses_equal_their_plain_forms():
    rng = np.random.default_rng(0)
    scores, mos = rng.uniform(0, 5, 9), rng.uniform(0, 5, 9)
    mos[3] = mos[5]  # a tie
    found = fidelity({"quality": torch.tensor(scores)}, {"quality": torch.tensor(mos)}, unit=1.25)
    assert found.item() == pytest.approx(oracles.fidelity(scores / 1.25, mos), abs=1e-7)
    mos[2] = np.nan
    kept = np.delete(np.arange(9), 2)
    found = fidelity({"quality": torch.tensor(scores)}, {"quality": torch.tensor(mos)}, unit=1.25)
    assert found.item() == pytest.approx(oracles.fidelity(scores[kept] / 1.25, mos[kept]), abs=1e-7)
    found = absolute_error({"quality": torch.tensor(scores)}, {"quality": torch.tensor(mos)})
    assert found.item() == pytest.approx(np.abs(scores - mos)[kept].mean(), abs=1e-7)
    alone = torch.tensor([2.0], requires_grad=True)
    fidelity({"quality": alone}, {"quality": torch.tensor([1.0])}, unit=1.25).backward()
    assert alone.grad.item() == 0  # a batch of one has no pair


def test_random_windows_are_decided_by_seed_epoch_and_position_alone():
    cuts = Cuts("random", 224, whole="none", count=8, flip=True)
    picture = torch.arange(3 * 512 * 640).view(3, 512, 640).float().div(4000)
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)

    def cut(*draws):
        return cut_views(picture.expand(len(draws), -1, -1, -1), cuts, 224, zero, one, draws)

    views = cut(Draw(1, 2, 3), Draw(1, 2, 4), Draw(1, 3, 3), Draw(2, 2, 3))
    assert views.shape == (4, 8, 3, 224, 224)
    assert len({view.numpy().tobytes() for view in views}) == 4
    assert torch.equal(cut(Draw(1, 2, 4))[0], views[1])
    grey, mirrored = picture.div(255), picture.flip(-1).div(255)
    corners = all_corners(picture.shape, cuts)
    allowed = [one[:, y : y + 224, x : x + 224] for one in (grey, mirrored) for y, x in corners]
    assert all(any(torch.allclose(view, part) for part in allowed) for view in views[0])
    flips = [cut(Draw(0, 0, i))[0, 0, 0, 0, 0] > cut(Draw(0, 0, i))[0, 0, 0, 0, 1] for i in range(60)]
    assert 15 < sum(map(bool, flips)) < 45  # half of them are mirrored


@pytest.mark.parametrize("method", METHODS)
def test_every_method_scores_alone_as_in_a_batch_and_reads_the_prompt_where_it_says_so(clip, pictures, method):
    engine = engine_of(clip, method)
    paths = [pictures / "square.png", pictures / "wide.png", pictures / "large.png"]
    prompts = [Prompt(text) for text in ("a cat, on a mat", "a dog", "two birds in a tree")]
    read = [read_image(path, engine.cuts.fit) for path in paths]
    with torch.no_grad():
        batch = engine.stage(read, prompts)
        together = engine.score(batch)
    assert tuple(together) == engine.method.gives
    for i, position in enumerate(batch.order):
        alone = score(engine, paths[position], prompts[position].text)
        other = score(engine, paths[position], "an old car")
        for dimension, value in alone.items():
            assert together[dimension][i].item() == pytest.approx(value, abs=1e-5)
            assert (other[dimension] != value) == (dimension in engine.method.needs_prompt)


def plain_ipce_scores(clip, views, prompts):
    """The gradient-carrying form of the oracle: `views` (B, 9, 3, 224, 224), view 0 the whole image."""
    scores = []
    for one, prompt in zip(views, prompts, strict=True):
        image = torch.nn.functional.normalize(clip.encode_image(one).float(), dim=-1)
        words = ("badly", "poorly", "fairly", "well", "perfectly")
        tokens = openai_clip().tokenize([f"a photo that {word} matches '{prompt}'" for word in words], truncate=True)
        text = torch.nn.functional.normalize(clip.encode_text(tokens).float(), dim=-1)
        logits = clip.logit_scale.exp() * image @ text.T  # (9, 5)
        probability = (logits[1:].mean(0).softmax(-1) + logits[0].softmax(-1)) / 2
        scores.append((probability * torch.tensor([0, 1.25, 2.5, 3.75, 5])).sum())
    return torch.stack(scores)


def plain_liqe_scores(clip, views, prompts):
    """The same of LIQE on 1-5: `views` (B, 3, 3, 224, 224)."""
    words = ("bad", "poor", "fair", "good", "perfect")
    tokens = openai_clip().tokenize([f"a photo with {word} quality" for word in words])
    text = torch.nn.functional.normalize(clip.encode_text(tokens).float(), dim=-1)
    image = torch.nn.functional.normalize(clip.encode_image(views.flatten(0, 1)).float(), dim=-1)
    logits = (clip.logit_scale.exp() * image @ text.T).unflatten(0, views.shape[:2]).mean(1)
    return logits.softmax(-1) @ torch.arange(1.0, 6)


@pytest.mark.parametrize("method", ["ipce", "liqe"])
def test_losses_in_training_follow_the_plain_way(clip, pictures, tmp_path, method):
    """Twelve steps, with the windows that the loader drew: the same losses as autograd and AdamW on openai-clip."""
    train = TrainConfig(epochs=4, batch_size=4, lr=1e-4, final_lr=1e-5, weight_decay=1e-3, clip_gradient=None)
    config = Config(method=method, model=ModelConfig(frozen_blocks=0), train=train)
    engine = make_engine(make_method(CLIPBackbone(copy.deepcopy(clip), "test"), config), config, CPU)
    paths = [pictures / f"{name}.png" for name in ("square", "wide", "large")] * 4
    samples = [
        Sample(str(i), path, f"number {i}, a bird", "keywords", {"quality": (i * 7 % 12) * 0.4})
        for i, path in enumerate(paths)
    ]
    trainer = Trainer(Loader(engine, ImageCache(tmp_path, engine.cuts)), samples, config)
    plain = copy.deepcopy(clip).train()
    plain.logit_scale.requires_grad_(False)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-4, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12, eta_min=1e-5)
    trainer.model.train()
    for epoch in range(1, 5):
        order = epoch_order(12, config.seed, epoch)
        drawn = [samples[i] for i in order]
        draws = [Draw(config.seed, epoch, position) for position in range(12)]
        batches = list(trainer.loader.batches(drawn, 4, draws))
        for start, (part, batch) in zip(range(0, 12, 4), batches, strict=True):
            loss = trainer.step(batch).item()
            read = [read_image(sample.image, engine.cuts.fit) for sample in part]
            views = torch.stack([engine.cut([r], [d])[0] for r, d in zip(read, draws[start : start + 4], strict=True)])
            mos = [sample.targets["quality"] for sample in part]
            optimizer.zero_grad()
            if method == "ipce":
                scores = plain_ipce_scores(plain, views, [sample.prompt for sample in part])
                expected = (scores - torch.tensor(mos)).abs().mean()
            else:
                scores = plain_liqe_scores(plain, views, None)
                pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
                wanted = torch.tensor([(np.sign(mos[i] - mos[j]) + 1) / 2 for i, j in pairs])
                found = torch.stack([(1 + torch.erf((scores[i] - scores[j]) / 2**0.5)) / 2 for i, j in pairs])
                alike = (found * wanted + 1e-8).sqrt() + ((1 - found) * (1 - wanted) + 1e-8).sqrt()
                expected = (1 - alike).mean()
            expected.backward()
            optimizer.step()
            schedule.step()
            assert loss == pytest.approx(expected.item(), abs=2e-4), (epoch, start)
    assert schedule.get_last_lr()[0] == pytest.approx(trainer.lr)


def test_published_weights_score_through_the_command_and_say_what_they_are(
    clip, pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    state = clip.state_dict()
    torch.save(state, "bare.pt")
    torch.save({"model_state_dict": {name: tensor.half() for name, tensor in state.items()}}, "half.pt")
    torch.save({"params": {f"clip_model.{name}": tensor for name, tensor in state.items()}}, "prefixed.pt")
    path = str(pictures / "square.png")
    found = {}
    for file in ("bare.pt", "half.pt", "prefixed.pt"):
        form = [] if file == "prefixed.pt" else ["--set", "options.form=full"]  # which is the default here
        command = ["score", path, "--method", "liqe", "--clip", file, *form, "--set", "device=cpu"]
        app(command, standalone_mode=False)
        out = capsys.readouterr().out
        found[file] = float(re.search(r"quality +([\d.]+)", out)[1])
        assert "correspondence" not in out
        _, *named = oracles.liqe(clip, Image.open(path), "full")
        assert re.findall(r"^(?:scene|distortion) +(.+)$", out, re.M) == named
        assert f"LIQE with {file}" in out
        assert "LIQE (target quality, form full)" in out
    expected = 1.25 * (oracles.liqe(clip, Image.open(path), "full")[0] - 1)
    assert found["bare.pt"] == found["prefixed.pt"] == pytest.approx(expected, abs=0.006)
    assert found["half.pt"] == pytest.approx(expected, abs=0.02)
    with pytest.raises(UserError, match=r"name a file of it with options\.context"):
        app(["score", path, "--method", "clip-iqa-plus", "--clip", "bare.pt"], standalone_mode=False)
    with pytest.raises(UserError, match=r"options\.frm: unknown key; known here: target, form"):
        app(
            ["score", path, "--method", "liqe", "--clip", "bare.pt", "--set", "options.frm=full"], standalone_mode=False
        )


def test_an_image_with_too_few_windows_is_a_row_and_stops_training(clip, pictures, here):
    scorer = Scorer.of_backbone(CLIPBackbone(copy.deepcopy(clip), "test"), method="liqe", device="cpu")
    small = np.zeros((256, 256, 3), np.uint8)
    table = scorer.score_many([small, pictures / "square.png"])
    assert "has 4 windows of 224 pixels, and 15 are needed" in table["status"][0]
    assert np.isfinite(table["quality"][1])
    assert "LIQE" in table["status"][1]
    Image.fromarray(small).save(here / "3.png")
    with pytest.raises(UserError, match=r"3\.png: a picture of 256x256 pixels has 4 windows"):
        training.main(["own.yaml", "method=liqe", "train.epochs=1"])


@pytest.mark.parametrize("method", ["ipce", "liqe"])
def test_one_model_for_one_target_is_trained_resumed_and_tested(here, method):
    words = ["own.yaml", f"method={method}", "options.target=correspondence", "folds=[1]", "train.epochs=2"]
    words += ["train.clip_gradient=null", "model.frozen_blocks=0"]
    training.main([*words, "name=whole"])
    testing.main([*words, "name=whole"])
    metrics = json.loads((here / "runs/whole/report/metrics_custom_random-image.json").read_text(encoding="utf-8"))
    assert list(metrics["summary"]) == ["correspondence"]
    assert metrics["method"] == METHODS[method].title
    scorer = Scorer.load(here / "runs/whole", device="cpu")
    assert scorer.scored == ("correspondence",)
    assert scorer.score(here / "3.png", "a grey wall").quality is None

    def stop(trainer, *args, **options):
        if trainer.counts.epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(trainer, *args, **options)

    train_epoch = Trainer.train_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            training.main([*words, "name=broken"])
    training.main([*words, "name=broken"])
    one, other = (load_file(here / f"runs/{name}/fold_01/best.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)  # random windows too are the same again


def test_several_targets_are_a_model_each_in_one_run_and_one_report(here, capsys):
    words = ["own.yaml", "method=liqe", "folds=[1]", "train.epochs=1", "train.lr=1e-4", "name=both"]
    several = [*words, "options.target=[quality,correspondence]"]
    training.main(several)
    testing.main(several)
    (table,) = (here / "runs/both/report").glob("predictions_*.csv")
    together = pd.read_csv(table)
    for target in ("quality", "correspondence"):
        alone = [*words[:-1], f"options.target={target}", f"name=only-{target}"]
        training.main(alone)
        testing.main(alone)
        (table,) = (here / f"runs/only-{target}/report").glob("predictions_*.csv")
        assert pd.read_csv(table)[f"{target}_pred"].tolist() == together[f"{target}_pred"].tolist()
        assert Scorer.load(here / "runs/both" / target, device="cpu").scored == (target,)
    with pytest.raises(UserError, match=r"a run for each of several targets; name one: .*correspondence, .*quality"):
        Scorer.load(here / "runs/both", device="cpu")
    with pytest.raises(UserError, match=r"runs/both: runs/both/correspondence holds another run; say name=ANOTHER"):
        training.main([*words, "options.target=quality"])
    for targets in ("[]", "[quality,quality]"):
        with pytest.raises(UserError, match=r"options\.target=.*: name one target or more, each once"):
            training.main([*words, f"options.target={targets}"])
    capsys.readouterr()
    training.main(several)
    assert capsys.readouterr().out.count("finished already, kept") == 2
    (here / "both.yaml").write_text("base: own.yaml\nmethod: liqe\noptions: {target: [quality, correspondence]}\n")
    assert [config.name for config in load_run(here / "both.yaml")] == ["quality", "correspondence"]
    assert load_run(here / "both.yaml", ["options.target=quality"])[0].run_folder == Path("runs/both")
    with pytest.raises(UserError, match="two of the configs would train into it"):
        training.main(["both.yaml", "own.yaml", "name=new"])
    training.main([*several, "overwrite=true"])
    assert not (here / "runs/both/report").exists()  # it was about other weights


@pytest.mark.parametrize(
    "word", ["method=ipce views.layout=grid", "method=liqe views.layout=none", "views.layout=even"]
)
def test_a_layout_that_a_method_cannot_work_with_is_refused(here, word):
    with pytest.raises(UserError, match=r"views\.layout=\w+: \w+ takes .* alone"):
        load_config(here / "own.yaml", word.split())


def test_a_method_that_trains_nothing_is_tested_as_it_is(here):
    words = ["own.yaml", "method=clip-score", "folds=[1]", "train.epochs=0", "name=bare"]
    training.main(words)
    testing.main(words)
    (table,) = (here / "runs/bare/report").glob("predictions_*.csv")
    row = pd.read_csv(table).iloc[0]
    picture = Image.open(here / row["image"])
    model = openai_module(load_file(here / "clip.safetensors"))
    cosine = oracles.image_vector(model, oracles.centre_view(picture, model.visual.input_resolution))
    expected = 5 * max(cosine @ oracles.text_vector(model, "A photo depicts " + row["prompt"]), 0)
    assert row["correspondence_pred"] == pytest.approx(expected, abs=1e-4)
    scorer = Scorer.load(here / "runs/bare", device="cpu")
    assert "not trained on MOS here" in scorer.score(here / "3.png", "a wall").status
    assert newest_checkpoint(here / "runs") is None  # scoring without a checkpoint wants a trained one
    assert "Nothing was trained" in (here / "runs/bare/report/table_custom_random-image.md").read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"train\.epochs=2: must be 0, since clip-score trains nothing"):
        training.main([*words[:-2], "train.epochs=2"])


def test_a_method_brings_its_own_defaults_which_files_and_words_change(here):
    assert load_config(None, ["name=x", "method=ipce"]).train.clip_gradient is None
    config = load_config(here / "own.yaml", ["method=ipce", "train.batch_size=5"])
    assert (config.train.batch_size, config.model.frozen_blocks, config.train.weight_decay) == (5, 0, 1e-3)
    assert load_config(here / "own.yaml").train.weight_decay == 5e-4


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configs_name_a_target_that_the_dataset_has(path):
    config = load_config(path)
    assert path.stem.startswith(f"{config.method}-a")
    there = DATASETS[config.data.dataset].dimensions
    if hasattr(config.options, "target"):
        assert config.options.target in there
        assert path.stem.endswith(config.options.target) or len(there) == 1
    assert bool(config.train.epochs) == (METHODS[config.method].trains != "nothing")
    assert config.train.clip_gradient is None or not config.train.epochs
