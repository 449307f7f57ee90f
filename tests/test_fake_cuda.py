"""On a GPU the host never makes the device wait: counted on fake tensors, for a ViT-B/16, without a GPU."""

from pathlib import Path

import pytest
import torch
from fake_cuda import fake_cuda, fake_engine

from mgs.config import Config, ModelConfig, TrainConfig
from mgs.datasets.samples import Sample
from mgs.dimensions import DIMENSIONS, Prompt
from mgs.engine import transfer
from mgs.engine.batcher import Batcher, Request
from mgs.engine.loader import Loader
from mgs.engine.predict import predict
from mgs.images.cache import ImageCache
from mgs.methods.mgs import MGSOptions
from mgs.training.trainer import Trainer

PROMPTS = [
    "statue of a man",
    "a tray of sushi, detailed, studio light",
    "red and blue armor, sharp focus, octane render",
    "a cosmic universe, hyper realistic, 8k, cinematic",
    "house of the dragon, baroque style",
    "a river in a forest, morning light, oil painting, wide angle",
    "two cats playing chess at night, rain, neon",
    "an astronaut riding a horse, on mars, photograph",
    "portrait of an old fisherman, wrinkles, film grain",
    "a castle above the clouds, anime style",
    "a red car next to a blue house, sunny day",
    "bowl of ramen, macro photo, steam, dark background",
]
MIXED = [(512 + 16 * i, 1024 - 8 * i) for i in range(32)]  # 32 pictures of 32 sizes


class Pictures(ImageCache):
    """Black pictures of given sizes, in place of files called 0.png, 1.png, ..."""

    def __init__(self, sizes):
        super().__init__(Path("none"))
        self.sizes = sizes

    def read(self, path):
        return torch.zeros(3, *self.sizes[int(path.stem) % len(self.sizes)], dtype=torch.uint8)


def samples(count):
    mos = dict.fromkeys(DIMENSIONS, 2.0)
    prompts = [f"{PROMPTS[i % 12]}, number {i // 12}" for i in range(count)]
    return [Sample(f"{i}.png", Path(f"{i}.png"), prompt, "keywords", mos) for i, prompt in enumerate(prompts)]


def config_of(precision="bf16", **options):
    model = ModelConfig(freeze_stem=options.pop("freeze_stem", False))
    return Config(
        device="cuda", precision=precision, model=model, train=TrainConfig(batch_size=12), options=MGSOptions(**options)
    )


def shapes_of(batch):
    (part,) = batch.parts
    packed = part.packed.tensors() if part.packed else {}
    tensors = {"mos": batch.mos["quality"], **part.numbers, **packed, "picture": part.inputs[0]}
    assert all(tensor.device.type == "cuda" for tensor in tensors.values())
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}, len(part.inputs)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_a_training_step_makes_nobody_wait(precision, monkeypatch):
    with fake_cuda() as log:
        config = config_of(precision)
        loader = Loader(fake_engine(config), Pictures([(512, 512)]))
        trainer = Trainer(loader, samples(36), config)
        trainer.model.train()
        log.clear()
        batches = [batch for _, batch in loader.batches(samples(36), 12)]
        assert [entry.kind for entry in log.entries] == ["sent"] * 3, log.table()  # one copy a batch
        shapes = [shapes_of(batch) for batch in batches]
        assert shapes[0] == shapes[1] == shapes[2]
        for batch in batches:
            loss = trainer.step(batch)
            assert loss.device.type == "cuda"
        assert not log.waits, log.table()
        assert not [entry for entry in log.entries if entry.kind == "mixed"], log.table()
        order, step, read = [], Trainer.step, transfer.Late.read
        monkeypatch.setattr(Trainer, "step", lambda *args: order.append("step") or step(*args))
        monkeypatch.setattr(transfer.Late, "read", lambda late: order.append("read") or read(late))
        trainer.train_epoch("epoch")
        assert not log.waits, log.table()
        assert order == ["step", "step", "read", "step", "read", "read"]  # a loss is read when the next step is queued


@pytest.mark.slow
def test_frozen_halves_of_texts_make_nobody_wait():
    with fake_cuda() as log:
        config = config_of(freeze_stem=True)
        loader = Loader(fake_engine(config), Pictures([(512, 512)]))
        trainer = Trainer(loader, samples(2), config)
        trainer.model.train()
        log.clear()
        for _, batch in [*loader.batches(samples(2), 2), *loader.batches(samples(2), 2)]:
            trainer.step(batch)
        assert not log.waits, log.table()


@pytest.mark.slow
def test_scoring_pictures_of_many_sizes_makes_nobody_wait():
    with fake_cuda() as log:
        loader = Loader(fake_engine(config_of()), Pictures(MIXED))
        loader.engine.method.eval()
        log.clear()
        with torch.inference_mode():
            for _, batch in loader.batches(samples(33), 32):
                scores = loader.engine.score(batch)
                assert {score.device.type for score in scores.values()} == {"cuda"}
        assert not log.waits, log.table()
        log.clear()
        assert len(predict(loader, samples(33))) == 33
        assert not log.waits, log.table()


def test_a_scorers_thread_waits_for_numbers_alone():
    with fake_cuda() as log:
        engine = fake_engine(config_of())
        batcher = Batcher(engine)
        engine.method.eval()
        log.clear()
        pictures = [torch.zeros(3, *size, dtype=torch.uint8) for size in MIXED]
        request = Request(pictures, [Prompt(prompt) for prompt in PROMPTS * 3][:32], most=32, caller=None)
        batcher.waiting.append(request)  # `submit` needs a real thread, which the log would not see
        batcher.work()
        assert len(request.answer.result(0)) == 32
        assert not log.waits, log.table()


def test_frozen_weights_are_cast_once():
    with fake_cuda() as log:
        engine = fake_engine(config_of())
        engine.method.eval().requires_grad_(False)
        engine.embed_texts(engine.method.read([Prompt("a cat")]).texts)
        batches = [engine.stage([torch.zeros(3, 512, 512, dtype=torch.uint8)], [Prompt("a cat")]) for _ in range(2)]
        counts = []
        for batch in batches:
            log.clear()
            with torch.inference_mode():
                engine.score(batch)
            counts.append(log.launches["_to_copy"])
        weights = 4 * 12 + 2  # four matrices a block, the patches' and the projection
        assert counts[0] - counts[1] == weights


def test_what_waits_is_noticed(monkeypatch):
    def send_and_wait(sender, tensors):
        return transfer.Sent({name: tensor.to(sender.device) for name, tensor in tensors.items()})

    monkeypatch.setattr(transfer.Sender, "send", send_and_wait)
    with fake_cuda() as log:
        config = config_of()
        loader = Loader(fake_engine(config), Pictures([(512, 512)]))
        trainer = Trainer(loader, samples(12), config)
        trainer.model.train()
        log.clear()
        for _, batch in loader.batches(samples(12), 12):
            float(trainer.step(batch))
        kinds = [entry.kind for entry in log.waits]
        assert kinds.count("copy") > 12
        assert kinds.count("read") == 1
