import copy
import dataclasses
import functools
import json
import math
import os
import re
import resource
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import IMAGES, random_backbone, random_clip
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from mgs.backbones.table import load_backbone
from mgs.config import Config, ModelConfig, TrainConfig, ViewsConfig
from mgs.config_files import load_config
from mgs.datasets.folds import find_folds
from mgs.datasets.samples import Sample
from mgs.dimensions import DIMENSIONS
from mgs.engine.engine import Engine, make_engine
from mgs.engine.halves import KeptHalves
from mgs.engine.loader import Loader, ahead, epoch_order
from mgs.errors import UserError
from mgs.evaluation.metrics import measure
from mgs.images import cache
from mgs.images.cache import ImageCache, write_array
from mgs.images.cuts import Cuts, cut_views
from mgs.images.decode import read_image
from mgs.machine import Machine, compile_or_not
from mgs.methods.losses import squared_error
from mgs.methods.method import Method, Reading
from mgs.methods.mgs import MGSOptions
from mgs.methods.table import make_method
from mgs.recipes import test as testing
from mgs.recipes import train as training
from mgs.training import checkpoint
from mgs.training.checkpoint import copy_for_checkpoint, load_checkpoint, save_checkpoint
from mgs.training.progress import copy_to_cpu
from mgs.training.saving import Writer
from mgs.training.trainer import Trainer, make_optimizer


@pytest.mark.plots
def test_training_and_testing_leave_a_complete_run(here, capsys):
    training.main(["own.yaml"])
    testing.main(["own.yaml"])
    run = here / "runs" / "own"
    for fold in (1, 2):
        files = {path.name.split(".tfevents")[0] for path in (run / f"fold_{fold:02d}").iterdir()}
        assert files == {"best.safetensors", "metrics.jsonl", "seconds.json", "predictions_val.csv", "events.out"}
    own = "custom_random-image"
    tables = {f"predictions_{own}.csv", f"metrics_{own}.csv", f"metrics_{own}.json", f"table_{own}.md"}
    assert tables | {f"report_{own}.html", f"curves_{own}.png"} <= {path.name for path in (run / "report").iterdir()}
    assert json.loads((run / "environment.json").read_text())["packages"]["torch"] == torch.__version__
    assert load_config(run / "config.yaml") == dataclasses.replace(load_config(here / "own.yaml"), folds=[])

    predictions = pd.read_csv(run / "report" / f"predictions_{own}.csv")
    assert list(predictions) == [
        "fold",
        "image",
        "prompt",
        "quality_mos",
        "quality_pred",
        "correspondence_mos",
        "correspondence_pred",
    ]
    assert len(predictions) == 12  # a fifth of 30 images, twice
    truth = {f"{i}.png": 5 * i / (IMAGES - 1) for i in range(IMAGES)}
    assert all(math.isclose(row.quality_mos, truth[row.image]) for row in predictions.itertuples())

    metrics = json.loads((run / "report" / f"metrics_{own}.json").read_text())
    assert (metrics["dataset"], metrics["protocol"]) == ("custom", "random-image")
    first = predictions[predictions.fold == 1]
    for row in metrics["folds"][:2]:
        dimension = row["dimension"]
        expected = measure(first[f"{dimension}_pred"], first[f"{dimension}_mos"])
        assert {name: row[name] for name in expected} == pytest.approx(expected)
    table = (run / "report" / f"table_{own}.md").read_text(encoding="utf-8")
    assert "mean ± SD" in table
    assert set(table.splitlines()) <= set(capsys.readouterr().out.splitlines())


def test_the_kept_epoch_is_the_one_best_on_val_and_its_weights_reproduce_its_predictions(here):
    training.main(["own.yaml", "folds=[1]", "train.epochs=4"])
    fold = here / "runs" / "own" / "fold_01"
    lines = [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    values = [np.mean([one[m] for one in line["val"].values() for m in ("srcc", "plcc")]) for line in lines]
    metadata = load_checkpoint(fold / "best.safetensors").metadata
    assert metadata["epoch"] == 1 + int(np.argmax(values))
    val = pd.read_csv(fold / "predictions_val.csv")
    assert measure(val.quality_pred, val.quality_mos)["srcc"] == pytest.approx(metadata["val"]["quality"]["srcc"])


def test_the_test_set_guides_nothing(here, monkeypatch):
    # Test samples whose pictures don't exist and whose MOS is another: whoever scores them fails, whoever uses their
    # MOS ends with other weights.
    training.main(["own.yaml", "folds=[1]", "train.epochs=2", "name=a"])
    read = training.read_pictures
    vals = []

    def without_test(*args, **options):
        folds, skipped = read(*args, **options)
        vals.extend(sample.name for sample in folds[0].val)
        absent = [
            dataclasses.replace(s, image=Path("gone"), targets=dict.fromkeys(s.targets, 0.0)) for s in folds[0].test
        ]
        return [dataclasses.replace(folds[0], test=absent)], skipped

    monkeypatch.setattr(training, "read_pictures", without_test)
    training.main(["own.yaml", "folds=[1]", "train.epochs=2", "name=b"])
    one, other = (load_file(here / f"runs/{name}/fold_01/best.safetensors") for name in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert pd.read_csv(here / "runs/b/fold_01/predictions_val.csv")["image"].tolist() == vals


def written(here, fold):
    return (here / f"runs/own/fold_{fold:02d}/best.safetensors").stat().st_mtime_ns


def test_a_finished_fold_is_kept_and_another_config_in_its_folder_is_refused(here):
    training.main(["own.yaml", "folds=[1]", "train.epochs=1"])
    first = written(here, 1)
    training.main(["own.yaml", "folds=[1,2]", "train.epochs=1"])
    assert written(here, 1) == first
    second = written(here, 2)
    with pytest.raises(UserError, match=r"runs/own: holds a run with another train\.epochs; .*name=.*overwrite=true"):
        training.main(["own.yaml", "folds=[1]", "train.epochs=2"])
    training.main(["own.yaml", "folds=[1]", "train.epochs=1", "overwrite=true"])
    assert written(here, 1) > first
    assert written(here, 2) == second  # only what was named is trained again
    training.main(["own.yaml", "folds=[1]", "train.epochs=2", "overwrite=true"])
    assert not (here / "runs/own/fold_02").exists()  # a fold of the old config would not belong to the run


def test_a_finished_fold_of_data_that_changed_is_refused(here):
    words = ["own.yaml", "folds=[1]", "train.epochs=1"]
    training.main(words)
    table = here / "mos.csv"
    table.write_text(table.read_text().replace("number 7", "number seven"))
    for command in (training.main, testing.main):
        with pytest.raises(UserError, match="trained on other data than there is now"):
            command(words)


def test_a_finished_fold_of_other_weights_is_refused_in_training_and_still_tested(here):
    words = ["own.yaml", "folds=[1]", "train.epochs=1"]
    training.main(words)
    save_file(random_clip(size=32, width=64, layers=2, embed=32, seed=1).state_dict(), here / "clip.safetensors")
    with pytest.raises(UserError, match=r"fold_01: trained from another clip\.safetensors .*overwrite=true"):
        training.main(words)
    testing.main(words)  # a checkpoint holds all that it needs


def test_a_run_that_never_finished_a_fold_may_be_corrected(here):
    with pytest.raises(UserError, match=r"lower train\.lr"):
        training.main(["own.yaml", "folds=[1]", "train.lr=1e30", "train.batch_size=100"])
    training.main(["own.yaml", "folds=[1]", "train.epochs=1"])


def test_a_mistake_in_the_last_config_surfaces_before_the_first_is_trained(here):
    (here / "other.yaml").write_text("base: own.yaml\ndata: {table: none.csv}\n")
    with pytest.raises(UserError, match=r"none\.csv"):
        training.main(["own.yaml", "other.yaml"])
    with pytest.raises(UserError, match="two of the configs would train into it"):
        training.main(["own.yaml", "other.yaml", "name=same"])
    assert not (here / "runs").exists()


def test_testing_refuses_folds_that_are_missing_unfinished_or_split_otherwise(here):
    with pytest.raises(UserError, match="no such run; train it first"):
        testing.main(["own.yaml"])
    training.main(["own.yaml", "folds=[1]", "train.epochs=1"])
    with pytest.raises(UserError, match="fold 2 not trained to the end"):
        testing.main(["own.yaml", "train.epochs=1"])
    with pytest.raises(UserError, match="another seed"):
        testing.main(["own.yaml", "folds=[1]", "train.epochs=1", "seed=7"])
    with pytest.raises(UserError, match=r"another options\.templates, views\.antialias"):
        testing.main(["own.yaml", "folds=[1]", "train.epochs=1", "options.templates=separate", "views.antialias=true"])
    assert not (here / "runs/own/report").exists()


def test_a_fold_that_fails_fails_the_run_and_leaves_no_finished_mark(here, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("a fault in the middle")

    monkeypatch.setattr(training, "predict", broken)
    with pytest.raises(RuntimeError, match="a fault in the middle"):
        training.main(["own.yaml", "train.epochs=1"])
    assert not list((here / "runs").rglob("predictions_val.csv"))
    assert not list((here / "runs").rglob("best.safetensors"))


def test_a_damaged_picture_stops_training_before_anything_is_written_or_is_left_out_aloud(here):
    fold = find_folds(load_config(here / "own.yaml").data, [1])[0]
    for sample in (fold.train[0], fold.test[0]):
        sample.image.write_bytes(sample.image.read_bytes()[:500])
    with pytest.raises(UserError, match=r"2 bad images: .*\.png.*\.png.*data\.on_bad_image=skip"):
        training.main(["own.yaml", "folds=[1]"])
    assert not (here / "runs").exists()
    words = ["own.yaml", "folds=[1]", "train.epochs=1", "data.on_bad_image=skip"]
    training.main(words)
    testing.main(words)
    report = here / "runs/own/report"
    assert "unreadable images left out of the test sets: 1" in (report / "table_custom_random-image.md").read_text()
    assert len(pd.read_csv(report / "predictions_custom_random-image.csv")) == len(fold.test) - 1


@pytest.mark.parametrize(
    "word",
    [
        "options.correspondence=whole",
        "options.correspondence=fragments",
        "options.templates=separate",
        "views.layout=none",
        "model.patches=false",  # the spelling of an older version
        "model.frozen_blocks=0",
        "model.frozen_blocks=1",
        "model.freeze_stem=true",
        "options.temperature=learned",
        "options.temperature=clip",
        "views.antialias=true",
        "views.layout=cover",
        "precision=bf16",
    ],
)
def test_every_option_trains_and_tests_from_config_alone(here, word):
    words = ["own.yaml", "folds=[1]", "train.epochs=1", word]
    training.main(words)
    testing.main(words)
    assert (here / "runs/own/report/table_custom_random-image.md").exists()


def test_pictures_of_different_sizes_share_a_batch_under_cover(here):
    Image.open(here / "0.png").resize((1600, 1300)).save(here / "0.png")
    training.main(["own.yaml", "folds=[1]", "train.epochs=1", "views.layout=cover"])


CPU = torch.device("cpu")


@functools.cache
def still_backbone():
    """A small backbone of which nothing trains."""
    return random_backbone(size=32, width=64, layers=1, embed=8, text_layers=1).requires_grad_(False)


class Constant(Method):
    """The smallest method: one number for every image."""

    gives = DIMENSIONS
    needs_prompt = frozenset()

    def __init__(self):
        super().__init__()
        self.backbone, self.sentences = still_backbone(), ["a sentence"]
        self.value = nn.Parameter(torch.tensor(1.0))

    def read(self, prompts):
        return Reading(self.sentences)

    def score(self, images, texts, numbers):
        return dict.fromkeys(self.gives, self.value.expand(len(images)))

    def loss(self, scores, mos):
        return squared_error(scores, mos)


def loader_of(method, *, dtype=torch.float32, images=None, halves=None, workers=0):
    engine = Engine(method, Cuts(), Machine(CPU, dtype))
    return Loader(engine, images or ImageCache(Path("unused")), halves, workers)


def test_the_loss_is_the_sum_of_mean_squared_errors_over_the_dimensions_there_are():
    scores = {name: torch.tensor([1.0, 2.0]) for name in ("quality", "authenticity", "correspondence", "overall")}
    mos = {"quality": torch.tensor([2.0, 2.0]), "correspondence": torch.tensor([4.0, 4.0])}
    assert squared_error(scores, mos).item() == pytest.approx(((1 + 0) + (9 + 4)) / 2)


def test_a_sample_without_mos_is_left_out_of_the_loss_and_changes_no_bit_of_it_otherwise():
    torch.manual_seed(0)
    dimensions = ("quality", "authenticity", "correspondence")
    table = torch.rand(3, 11) * 5
    mos = dict(zip(dimensions, table, strict=True))
    scores = {d: (torch.rand(11) * 5).requires_grad_() for d in dimensions}
    loss = squared_error(scores, mos)
    plain = (torch.stack([scores[d] for d in dimensions]) - table).square().mean(1).sum()
    assert torch.equal(loss, plain)
    pairs = [torch.autograd.grad(one, list(scores.values())) for one in (loss, plain)]
    assert all(map(torch.equal, *pairs))
    quality = mos["quality"].clone()
    quality[:4] = math.nan
    loss = squared_error(scores, {**mos, "quality": quality})
    errors = {d: (scores[d] - mos[d]).detach().square() for d in dimensions}
    assert loss.item() == pytest.approx(
        sum(one[4 if d == "quality" else 0 :].mean().item() for d, one in errors.items())
    )
    (gradient,) = torch.autograd.grad(loss, scores["quality"])
    assert gradient.ne(0).tolist() == [False] * 4 + [True] * 7
    of_two = {d: one[:2] for d, one in scores.items()}
    none = {**{d: mos[d][:2] for d in dimensions}, "quality": quality[:2]}  # a batch may hold none that has it
    expected = sum(errors[d][:2].mean().item() for d in dimensions[1:])
    assert squared_error(of_two, none).item() == pytest.approx(expected)


def test_the_loss_equals_a_plain_loop_whatever_is_missing():
    random = np.random.default_rng(0)
    for _ in range(50):
        count, names = int(random.integers(1, 7)), list(random.permutation(DIMENSIONS)[: random.integers(1, 5)])
        mos, scores = ({d: random.uniform(0, 5, count) for d in names} for _ in range(2))
        for values in mos.values():
            values[random.random(count) < 0.4] = math.nan
        expected = 0.0
        for d in names:
            there = [i for i in range(count) if not math.isnan(mos[d][i])]
            expected += sum((scores[d][i] - mos[d][i]) ** 2 for i in there) / max(len(there), 1)
        mos, scores = ({d: torch.tensor(v).float() for d, v in one.items()} for one in (mos, scores))
        assert squared_error(scores, mos).item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_holds_the_mos_of_its_images_and_of_the_dimensions_that_any_of_them_has(own_set):
    targets = [{"quality": 1.0}, {"quality": 2.0, "overall": 3.0}, {}, {"overall": 4.0}, {"overall": 5.0}]
    samples = [Sample(f"{i}.png", own_set / f"{i}.png", "", "sentence", one) for i, one in enumerate(targets)]
    first, last = (batch for _, batch in loader_of(Constant()).batches(samples, 3))
    torch.testing.assert_close(first.mos["quality"], torch.tensor([1.0, 2, math.nan]), equal_nan=True)
    torch.testing.assert_close(first.mos["overall"], torch.tensor([math.nan, 3, math.nan]), equal_nan=True)
    assert {d: values.tolist() for d, values in last.mos.items()} == {"overall": [4.0, 5.0]}
    assert set(first.mos) == {"quality", "overall"}


def test_a_table_with_a_division_of_its_own_and_missing_mos_is_trained_and_tested(here, capsys):
    rows = pd.read_csv(here / "mos.csv").assign(split=["train", "train", "train", "val", "test"] * (IMAGES // 5))
    rows.loc[rows.index % 4 == 0, "correspondence"] = float("nan")
    rows.to_csv(here / "mos.csv", index=False)
    (here / "split.yaml").write_text("base: own.yaml\nfolds: []\ntrain: {epochs: 1}\ndata: {protocol: published}\n")
    training.main(["split.yaml"])
    testing.main(["split.yaml"])
    assert (
        "flaw: MOS missing, and left out of loss and metrics: correspondence of 8 of 30 images"
        in capsys.readouterr().out
    )
    report = here / "runs/split/report"
    predictions = pd.read_csv(report / "predictions_custom_own.csv")
    assert predictions["image"].tolist() == rows.loc[rows["split"] == "test", "image"].tolist()
    assert predictions["correspondence_mos"].isna().sum() == 2
    assert predictions["correspondence_pred"].notna().all()
    assert pd.read_csv(report / "metrics_custom_own.csv")["images"].tolist() == [6, 4]
    assert "protocol own, 1 fold, 6 test images" in (report / "table_custom_own.md").read_text()
    assert "nan" not in re.sub(r"base64,[^\"]*", "", (report / "report_custom_own.html").read_text())
    shutil.copytree(here / "runs/split", here / "runs/again")
    testing.main(["--compare", "runs/split", "runs/again"])


def test_the_learning_rate_falls_by_a_cosine_over_exactly_the_runs_steps():
    model = Constant()
    model.backbone, model.head = nn.Linear(1, 1), nn.Linear(1, 1)  # a head may be a module too
    optimizer, schedule = make_optimizer(model, TrainConfig(lr=1.0, final_lr=0.1, head_lr=0.5, epochs=5), epoch_steps=2)
    rates = []
    for _ in range(11):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    for i, (tower, head) in enumerate(rates):
        cosine = (1 + math.cos(math.pi * i / 10)) / 2
        assert tower == pytest.approx(0.1 + 0.9 * cosine)
        assert head == pytest.approx(0.1 + 0.4 * cosine)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 3]
    assert optimizer.param_groups[0]["weight_decay"] == 5e-4


def test_the_learning_rate_may_be_the_authors_wave_without_epochs_at_zero():
    model = Constant()
    model.backbone = nn.Linear(1, 1)
    optimizer, schedule = make_optimizer(model, TrainConfig(lr=5e-6, wave_epochs=5), epoch_steps=2)
    theirs = torch.optim.SGD([torch.zeros(1)], lr=5e-6)  # as IPCE's and LIQE's loops have it
    wave = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=5)
    for _ in range(30):
        if theirs.param_groups[0]["lr"] < 1e-18:
            theirs.step()
            wave.step()
        for _ in range(2):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-6)
            optimizer.step()
            schedule.step()
        theirs.step()
        wave.step()


def four_pictures(own_set, **options):
    config = Config(name="x")
    config.data.workers, config.train.batch_size, config.train.epochs = 0, 2, 3
    for key, value in options.items():
        setattr(config.train, key, value)
    samples = [Sample(f"{i}.png", own_set / f"{i}.png", "", "sentence", {"overall": 3.0}) for i in range(0, 24, 6)]
    return samples, config


def test_a_trainer_runs_its_cosine_to_the_end_and_no_further(own_set):
    samples, config = four_pictures(own_set)
    trainer = Trainer(loader_of(Constant()), samples, config)
    for _ in range(3):
        assert trainer.lr > config.train.final_lr
        trainer.train_epoch("")
        trainer.next_epoch()
    assert trainer.lr == pytest.approx(config.train.final_lr)


def test_gradients_are_clipped_to_the_configured_norm(own_set):
    samples, config = four_pictures(own_set, clip_gradient=0.125)
    model = Constant()
    trainer = Trainer(loader_of(model), samples, config)
    trainer.train_epoch("")
    assert model.value.grad.item() == pytest.approx(-0.125, rel=1e-3)


def cut(picture, cuts):
    backbone = still_backbone()
    return cut_views(picture, cuts, backbone.size, backbone.mean, backbone.std)


@pytest.mark.parametrize(("layout", "antialias"), [("grid", True), ("cover", False)])
def test_the_engine_cuts_views_as_configured(layout, antialias):
    picture = torch.randint(0, 256, (3, 600, 1300), dtype=torch.uint8)
    config = Config(name="x", views=ViewsConfig(layout, antialias))
    (views,) = make_engine(Constant(), config, Machine(CPU, torch.float32)).cut([picture])
    assert torch.equal(views, cut(picture, Cuts(layout, antialias=antialias)))
    assert not torch.equal(views[:10], cut(picture, Cuts()))


def test_pictures_of_one_size_are_cut_together_and_come_back_in_order():
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((512, 600), (700, 512), (512, 600))]
    views = loader_of(Constant()).engine.cut(pictures)
    for picture, one in zip(pictures, views, strict=True):
        torch.testing.assert_close(one, cut(picture, Cuts()), atol=1e-5, rtol=0)


def test_an_epochs_order_follows_from_seed_and_epoch_alone():
    orders = {(seed, epoch): epoch_order(16, seed, epoch) for seed in (1, 2) for epoch in (1, 2)}
    assert len(set(map(tuple, orders.values()))) == 4
    assert all(sorted(order) == list(range(16)) for order in orders.values())
    assert epoch_order(16, 2, 1) == orders[2, 1]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_come_in_order_however_many_threads_read_and_what_is_kept_is_not_read_again(
    own_set, workers, monkeypatch, tmp_path
):
    """Kept pictures come from memory also where others of the set had no room there."""
    samples = [Sample(f"{i}.png", own_set / f"{i}.png", "", "sentence", {}) for i in range(7)]
    images = ImageCache(tmp_path)
    images.fill([sample.image for sample in samples[:5]], "ram", torch.device("cpu"))
    read = []
    monkeypatch.setattr(cache, "read_image", lambda path, fit: read.append(path.name) or read_image(path, fit))
    batches = list(loader_of(Constant(), images=images, workers=workers).batches(samples, 3))
    assert [[sample.name for sample in part] for part, _ in batches] == [
        ["0.png", "1.png", "2.png"], ["3.png", "4.png", "5.png"], ["6.png"]
    ]  # fmt: skip
    for part, batch in batches:
        pictures = [picture for one in batch.parts for picture in one.inputs]
        assert len(pictures) == len(part)
        assert all(torch.equal(pictures[i], read_image(part[at].image)) for i, at in enumerate(batch.order))
    assert sorted(read) == ["5.png", "6.png"]


@pytest.mark.parametrize("place", ["none", "disk", "halves"])
def test_a_large_batch_needs_few_open_files(own_set, tmp_path, place):
    """As with `ulimit -n`: pictures from other processes and memory-mapped ones took a file descriptor each."""
    samples = [Sample(f"{i}.png", own_set / f"{i}.png", "", "sentence", {}) for i in range(24)]
    images = ImageCache(tmp_path)
    if place == "disk":
        images.fill([sample.image for sample in samples], "disk", torch.device("cpu"))
    halves = None
    if place == "halves":
        halves = KeptHalves(tmp_path, images)
        images.keys = {sample.image: sample.name for sample in samples}
        for sample in samples:
            write_array(halves.file(sample), np.zeros((2, 3)))
    loader = loader_of(Constant(), images=images, halves=halves)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 12, before[1]))
    try:
        ((part, batch),) = loader.batches(samples, 64)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(part) == len(batch.order) == 24


def test_any_method_can_be_driven_and_learns_the_mean(own_set):
    config = Config(name="x")
    config.data.workers, config.train.lr, config.train.final_lr = 0, 0.1, 0.1
    samples = [Sample(f"{i}.png", own_set / f"{i}.png", "", "sentence", {"overall": 3.0}) for i in range(4)]
    config.train.epochs, config.train.batch_size = 40, 4
    model = Constant()
    trainer = Trainer(loader_of(model), samples, config)
    for _ in range(config.train.epochs):
        trainer.train_epoch("")
        trainer.next_epoch()
    assert model.value.item() == pytest.approx(3.0, abs=0.2)


class Faulty(Constant):
    """Answers with a value that is not finite at the calls named."""

    def __init__(self, calls, value=math.nan):
        super().__init__()
        self.calls, self.wrong, self.count = calls, value, 0

    def score(self, images, texts, numbers):
        self.count += 1
        scores = super().score(images, texts, numbers)
        return {d: one * self.wrong for d, one in scores.items()} if self.count in self.calls else scores


class Steep(Constant):
    """Its scores are finite, their gradients are not at the calls named: the square root's slope at 0 is infinite."""

    def __init__(self, calls):
        super().__init__()
        self.calls, self.count = calls, 0

    def score(self, images, texts, numbers):
        self.count += 1
        added = (self.value - self.value).sqrt() if self.count in self.calls else 0
        return {d: one + added for d, one in super().score(images, texts, numbers).items()}


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_skipped_and_counted(own_set, wrong):
    samples, config = four_pictures(own_set)
    samples = samples * 2
    trainer = Trainer(loader_of(model := Faulty({2}, wrong)), samples, config)
    before = model.value.item()
    loss = trainer.train_epoch("")
    assert trainer.counts.skipped == 1
    assert math.isfinite(loss)
    assert math.isfinite(model.value.item())
    assert model.value.item() != before
    assert model.count == 4


FAULTS = {
    "loss nan": functools.partial(Faulty, value=math.nan),
    "loss inf": functools.partial(Faulty, value=math.inf),
    "gradient": Steep,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_that_is_not_finite_changes_no_weight_and_nothing_of_the_optimiser(own_set, fault, dtype):
    """The fused optimiser is told on the device to leave all as it is; what the next step does shows that it did."""
    samples, config = four_pictures(own_set)
    trainers = [Trainer(loader_of(FAULTS[fault](calls), dtype=dtype), samples, config) for calls in ({2, 3}, ())]
    for trainer in trainers:
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=dtype == torch.float16)
        trainer.model.train()
    (_, batch), *_ = trainers[0].loader.batches(samples, 2)
    broken, sound = trainers
    for trainer in trainers:
        assert trainer.step(batch).isfinite()
    before = copy_to_cpu([broken.optimizer.state_dict()["state"], broken.model.state_dict()])
    for _ in range(2):
        assert broken.step(batch).isnan()
        after = [broken.optimizer.state_dict()["state"], broken.model.state_dict()]
        torch.testing.assert_close(after, before, rtol=0, atol=0)
        sound.schedule.step()  # which a skipped step advances too
    assert broken.scaler.get_scale() == 1  # float16: from 4, halved twice; float32: it is off
    assert torch.equal(*(trainer.step(batch) for trainer in trainers))
    assert torch.equal(broken.model.value, sound.model.value)
    assert broken.model.value != before[1]["value"]


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(own_set):
    samples, config = four_pictures(own_set, epochs=1)
    trainer = Trainer(loader_of(model := Steep(range(100))), samples, config)
    with pytest.raises(UserError, match="gradient is not finite"):
        trainer.train_epoch("")
    assert model.value.item() == 1


def test_a_steps_loss_is_read_when_the_next_one_is_on_its_way_and_counted_by_the_epochs_end(own_set):
    samples, config = four_pictures(own_set)
    trainer = Trainer(loader_of(Faulty({2, 5, 6})), samples * 3, config)
    seen = []
    loss = trainer.train_epoch("", lambda: seen.append((trainer.counts.steps, trainer.counts.skipped)))
    assert seen == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2)]
    counts = trainer.counts
    assert (counts.steps, counts.skipped, counts.skipped_in_a_row, counts.images) == (6, 3, 2, 6)
    assert loss == counts.loss / 6


def test_a_save_within_an_epoch_counts_the_step_just_taken_and_resumes_with_it(own_set):
    samples, config = four_pictures(own_set, epochs=1)
    saved, unbroken = [], Trainer(loader_of(Faulty({2, 5, 6})), samples * 3, config)
    loss = unbroken.train_epoch("", lambda: saved.append(copy.deepcopy(copy_to_cpu(unbroken.state_dict()))))
    counts = [state["counts"] for state in saved]
    assert [one["steps"] for one in counts] == [1, 2, 3, 4, 5, 6]
    assert [one["skipped"] for one in counts] == [0, 1, 1, 1, 2, 3]
    assert [one["skipped_in_a_row"] for one in counts] == [0, 1, 0, 0, 1, 2]
    assert [one["images"] for one in counts] == [2, 2, 4, 6, 6, 6]
    for done in (1, 2, 5):
        resumed = Trainer(loader_of(Faulty({call - done for call in (2, 5, 6)})), samples * 3, config)
        resumed.load_state_dict(saved[done - 1])
        assert resumed.train_epoch("") == loss
        torch.testing.assert_close(resumed.state_dict(), unbroken.state_dict(), rtol=0, atol=0)


def test_ten_steps_in_a_row_that_are_not_finite_stop_with_a_remedy(own_set):
    samples, config = four_pictures(own_set)
    model = Faulty(range(4, 100))
    trainer = Trainer(loader_of(model), samples * 10, config)
    values = []
    with pytest.raises(UserError, match=r"10 steps in a row whose loss .* not finite; lower train\.lr"):
        trainer.train_epoch("", lambda: values.append(model.value.item()))
    assert model.count == 14  # the tenth's loss is read when the next step is on its way
    assert trainer.counts.skipped == 10
    assert len(set(values[:3])) == 3
    assert {*values[2:], model.value.item()} == {values[2]}


@pytest.mark.parametrize("saves", [True, False])
def test_the_tenth_step_in_a_row_stops_training_also_where_it_is_saved_or_ends_an_epoch(own_set, saves):
    samples, config = four_pictures(own_set)
    model = Faulty(range(1, 100))
    trainer = Trainer(loader_of(model), samples * (10 if saves else 5), config)
    with pytest.raises(UserError, match="10 steps in a row whose loss"):
        trainer.train_epoch("", trainer.state_dict if saves else lambda: None)
    assert model.count == 10
    assert model.value.item() == 1


def test_a_loss_that_is_never_finite_stops_a_short_run_too(own_set):
    samples, config = four_pictures(own_set, epochs=2)
    trainer = Trainer(loader_of(Faulty(range(100))), samples, config)
    assert math.isnan(trainer.train_epoch(""))
    trainer.next_epoch()
    with pytest.raises(UserError, match=r"4 steps in a row whose loss .* not finite; lower train\.lr"):
        trainer.train_epoch("")


def test_a_scalers_first_overflows_are_no_failure_where_epochs_are_short(own_set, recwarn):
    """In float16 the scale begins too high and is halved until nothing overflows; here that takes three steps."""
    samples, config = four_pictures(own_set, epochs=6, batch_size=4)
    trainer = Trainer(loader_of(model := Faulty({1, 2, 3}, math.inf), dtype=torch.float16), samples, config)
    for _ in range(6):
        trainer.train_epoch("")
        trainer.next_epoch()
    assert trainer.counts.skipped == 3
    assert model.value.item() != 1
    assert not [warning for warning in recwarn if "lr_scheduler" in str(warning.message)]
    assert trainer.lr == pytest.approx(config.train.final_lr)


class TestCheckpoint:
    def save(self, path, own_set, *, published=False, **options):
        backbone = load_backbone(str(own_set / "clip.safetensors"))
        backbone.published = published
        config = Config(name="x", model=ModelConfig(clip=backbone.name), options=MGSOptions(**options))
        model = make_method(backbone, config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.01)
        save_checkpoint(path, model, config, {})
        return model

    @pytest.mark.parametrize("published", [True, False])
    def test_a_checkpoint_gives_back_every_parameter(self, tmp_path, own_set, published, monkeypatch):
        monkeypatch.setattr(checkpoint, "is_published", lambda name: published)
        model = self.save(tmp_path / "c.safetensors", own_set, published=published, temperature="learned")
        again = load_checkpoint(tmp_path / "c.safetensors").model
        for (name, one), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(one, other), name

    def test_only_a_backbone_that_is_not_published_is_embedded(self, tmp_path, own_set):
        self.save(tmp_path / "own.safetensors", own_set)
        self.save(tmp_path / "published.safetensors", own_set, published=True)
        everything, trained = (load_file(tmp_path / f"{n}.safetensors") for n in ("own", "published"))
        assert "backbone.visual.transformer.resblocks.0.ln_1.weight" in everything
        assert "backbone.visual.transformer.resblocks.0.ln_1.weight" not in trained
        assert "backbone.visual.transformer.resblocks.1.ln_1.weight" in trained

    def test_an_embedded_backbone_needs_no_other_file(self, tmp_path, here):
        path = tmp_path / "c.safetensors"
        self.save(path, here)
        (here / "clip.safetensors").unlink()
        assert load_checkpoint(path).config.name == "x"

    def test_another_backbone_under_the_same_name_is_refused(self, tmp_path, here, monkeypatch):
        monkeypatch.setattr(checkpoint, "is_published", lambda name: True)
        path = tmp_path / "c.safetensors"
        self.save(path, here, published=True)
        save_file(random_clip(size=32, width=64, layers=2, embed=32, seed=1).state_dict(), here / "clip.safetensors")
        with pytest.raises(UserError, match="trained on another"):
            load_checkpoint(path)

    def test_what_is_no_checkpoint_is_one_line(self, tmp_path, own_set):
        (tmp_path / "text.safetensors").write_text("hello")
        for path in (
            tmp_path / "none.safetensors",
            tmp_path / "text.safetensors",
            own_set / "clip.safetensors",
            tmp_path,
        ):
            with pytest.raises(UserError) as caught:
                load_checkpoint(path)
            assert "\n" not in str(caught.value)
            assert str(path) in str(caught.value)


class TestWriter:
    def test_writes_happen_in_order_while_the_caller_goes_on(self):
        gate, written = threading.Event(), []
        with Writer() as writer:
            writer.submit(lambda: gate.wait(10) and written.append(1))
            writer.submit(written.append, 2)
            assert written == []
            gate.set()
        assert written == [1, 2]

    def test_a_write_that_fails_is_not_passed_over_and_none_after_it_is_begun(self):
        written = []

        def fails():
            raise OSError(28, "No space left on device", "last.pt")

        writer = Writer()
        writer.submit(fails)
        writer.submit(written.append, "the checkpoint that hangs on it")
        with pytest.raises(OSError, match=r"last\.pt"):
            writer.__exit__(None)
        assert written == []

    def test_at_most_two_writes_wait(self):
        gate, begun = threading.Event(), []
        with Writer() as writer:
            writer.submit(gate.wait, 10)
            writer.submit(begun.append, 1)
            threading.Timer(0.2, gate.set).start()
            writer.submit(begun.append, 2)  # waits for the first
            assert gate.is_set()
        assert begun == [1, 2]


def test_a_copy_for_a_checkpoint_is_the_model_as_it_was(own_set):
    config = Config(name="x", model=ModelConfig(clip=str(own_set / "clip.safetensors")))
    model = make_method(load_backbone(config.model.clip), config)
    tensors, _ = copy_for_checkpoint(model, config, {})
    model.alpha.data.fill_(7.0)  # training goes on
    assert tensors["alpha"].item() == 0


def test_batches_fetched_ahead_come_in_order_and_an_error_among_them_surfaces():
    assert list(ahead(range(50))) == list(range(50))

    def broken():
        yield 1
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        list(ahead(broken()))


def test_a_compiler_that_fails_leaves_the_function_as_it_is_with_a_warning(monkeypatch, capsys):
    def fails(*args):
        raise TorchDynamoException("no compiler here\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda function: fails)
    scale = compile_or_not(lambda factor, x: factor * x)
    assert [scale(2, torch.ones(count)).tolist() for count in (2, 3)] == [[2, 2], [2, 2, 2]]
    assert capsys.readouterr().err == "warning: torch.compile failed, continuing without it: no compiler here\n"


def test_an_error_of_a_compiled_function_is_its_own(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function: lambda *args: function(*args))
    call = compile_or_not(lambda divisor, x: x * (1 / divisor))
    assert call(2, torch.ones(2)).tolist() == [0.5, 0.5]
    with pytest.raises(ZeroDivisionError):
        call(0, torch.ones(2))
    assert "compile failed" not in capsys.readouterr().err
