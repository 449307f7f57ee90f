"""On a real GPU: the CPU's scores, no waiting under torch's own check, and a resumed training like an unbroken one."""

import copy

import pytest
import torch
from conftest import random_clip

from mgs.backbones.clip import CLIPBackbone
from mgs.config import Config, ModelConfig, TrainConfig
from mgs.datasets.samples import Sample
from mgs.dimensions import Prompt
from mgs.engine.engine import make_engine
from mgs.engine.loader import Loader
from mgs.engine.predict import predict
from mgs.images.cache import ImageCache
from mgs.machine import Machine
from mgs.methods.mgs import MGSOptions
from mgs.methods.table import make_method
from mgs.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
SIZES = [(512, 512), (600, 512), (512, 700), (512, 512)]
PROMPTS = ["a cat, on a mat", "a river in a forest, morning light", "statue", "two cats playing chess at night"]
RESUMED = 5e-3  # of MOS: on a GPU, gradients are added up in any order


@pytest.fixture(scope="module")
def clip():
    return random_clip()


class Pictures(ImageCache):
    """Random pictures in place of files, by the number that a path is."""

    def read(self, path):
        number = int(path.stem)
        generator = torch.Generator().manual_seed(number)
        size = SIZES[number % len(SIZES)]
        return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)


def config_of(precision, **options):
    train = TrainConfig(epochs=2, batch_size=4, lr=1e-4, final_lr=1e-5)
    return Config(name="x", precision=precision, train=train, model=ModelConfig(**options), options=MGSOptions())


def loader_of(clip, config, device, tmp_path):
    method = make_method(CLIPBackbone(copy.deepcopy(clip), "test"), config)
    engine = make_engine(method, config, Machine.choose(device, config.precision))
    return Loader(engine, Pictures(tmp_path))


def samples(tmp_path, count):
    return [
        Sample(
            f"{i}", tmp_path / f"{i}.png", PROMPTS[i % 4], "keywords", {"quality": i % 5, "correspondence": 4 - i % 5}
        )
        for i in range(count)
    ]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 1e-2), ("fp16", 1e-2)])
def test_scores_equal_the_cpus(tmp_path, precision, tolerance):
    clip = random_clip(size=224, width=768, layers=12, embed=512, text_width=512, text_layers=12)  # ViT-B/16's shape
    expected = predict(loader_of(clip, config_of("fp32"), "cpu", tmp_path), samples(tmp_path, 5))
    found = predict(loader_of(clip, config_of(precision), "cuda", tmp_path), samples(tmp_path, 5))
    for dimension in ("quality", "correspondence"):
        torch.testing.assert_close(
            torch.tensor(found[f"{dimension}_pred"].to_numpy()),
            torch.tensor(expected[f"{dimension}_pred"].to_numpy()),
            atol=tolerance,
            rtol=0,
        )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("freeze_stem", [False, True])
def test_nothing_in_a_step_or_a_scoring_batch_waits(clip, tmp_path, precision, freeze_stem):
    config = config_of(precision, freeze_stem=freeze_stem)
    loader = loader_of(clip, config, "cuda", tmp_path)
    trainer = Trainer(loader, samples(tmp_path, 12), config)
    trainer.model.train()
    (*warm, last) = [batch for _, batch in loader.batches(samples(tmp_path, 12), 4)]
    for batch in warm:
        trainer.step(batch)
    pictures = [loader.read(sample) for sample in samples(tmp_path, 4)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(last)
        trainer.model.eval()
        with torch.inference_mode():
            loader.engine.score(loader.engine.stage(pictures, [Prompt(prompt) for prompt in PROMPTS]))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_many_batches_on_their_way_do_not_overwrite_one_another(clip, tmp_path):
    loader = loader_of(clip, config_of("fp32"), "cuda", tmp_path)
    loader.engine.method.eval()
    one_by_one = predict(loader, samples(tmp_path, 64), batch_size=1)
    staged = [batch for _, batch in loader.batches(samples(tmp_path, 64), 8)]  # all before any is used
    with torch.inference_mode():
        found = torch.cat([loader.engine.score(batch)["quality"] for batch in staged]).cpu()
    torch.testing.assert_close(found, torch.tensor(one_by_one["quality_pred"].to_numpy()).float(), atol=1e-4, rtol=0)


def test_a_resumed_training_ends_like_an_unbroken_one(clip, tmp_path):
    ends = []
    for stop in (None, 2):
        config = config_of("bf16")
        trainer = Trainer(loader_of(clip, config, "cuda", tmp_path), samples(tmp_path, 16), config)
        while trainer.counts.epoch <= 2:
            if stop and trainer.counts.epoch == 2:
                state = copy.deepcopy(trainer.state_dict())
                trainer = Trainer(loader_of(clip, config, "cuda", tmp_path), samples(tmp_path, 16), config)
                trainer.load_state_dict(state)
                stop = None
            trainer.train_epoch("epoch")
            trainer.next_epoch()
        ends.append(predict(trainer.loader, samples(tmp_path, 16))["quality_pred"].to_numpy())
    assert abs(ends[0] - ends[1]).max() < RESUMED
