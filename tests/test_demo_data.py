"""The drawn dataset and the small CLIP that goes with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.nn.functional import normalize

from benchmarks.plain import openai_module
from mgs.backbones.architecture import MEAN, STD
from mgs.backbones.table import load_backbone
from mgs.demo.drawing import Picture, draw
from mgs.demo.faults import AUTHENTICITY_DAMAGES, QUALITY_DAMAGES, Damage
from mgs.demo.generators import GENERATORS, Drawn, as_asked, make_mistakes, sample_damage, true_correspondence
from mgs.demo.layout import Figure
from mgs.demo.media import MEDIA
from mgs.demo.prompts import (
    PARTS,
    RELATIONS,
    STYLES,
    Content,
    Group,
    part_of,
    sample_content,
    with_article,
    write_prompt,
)
from mgs.demo.write import SIZES, rate, write_demo
from mgs.errors import UserError
from mgs.images.cuts import Cuts, cut_views
from scripts import demo_captions
from scripts.demo_captions import WHOLE, arrange, caption, choose, claims_of, describe
from scripts.demo_probes import probe

ASSET = Path(__file__).parents[1] / "mgs" / "assets" / "demo_clip.safetensors"
MAX_ASSET_BYTES = 8_000_000
FEW = {"train": 42, "val": 6, "test": 21}
FEWEST = {"train": 6, "val": 3, "test": 6}
ONE_EACH = {"train": 1, "val": 1, "test": 1}
# By chance 0.1, 0.02, 0.2, 0.25, 0.07.
KNOWN = {"colour": 0.8, "shape": 0.6, "count": 0.2, "position": 0.3, "scene": 0.8}
DIMENSIONS = ["quality", "authenticity", "correspondence"]
SCENE = Content((Group("red", "house"), Group("blue", "cat", 2)), "left of", "grassy meadow", None, "golden light")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "demo"
    write_demo(root, sizes=FEW)
    return root


def read_part(root: Path, part: str) -> pd.DataFrame:
    return pd.read_csv(root / "splits" / "prompt-disjoint" / "1" / f"{part}.csv", keep_default_na=False)


def all_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def contents(part: str, count: int) -> Iterator[Content]:
    rng = np.random.default_rng(0)
    return (sample_content(rng, part) for _ in range(count))


def views_of(picture: np.ndarray) -> torch.Tensor:
    """What the model sees of a picture, (V, 3, 96, 96)."""
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    return cut_views(torch.from_numpy(picture).permute(2, 0, 1), Cuts(), 96, mean, std)


def detail(picture: np.ndarray) -> float:
    """Mean step between neighbouring pixels of what the model sees of the whole picture."""
    whole = views_of(picture)[0]
    return float(whole.diff(dim=-1).abs().mean())


def test_the_same_seed_gives_the_same_files_and_another_seed_gives_others(tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        write_demo(tmp_path / name, seed=seed, sizes=FEWEST)
    assert all_files(tmp_path / "one") == all_files(tmp_path / "again")
    assert set(read_part(tmp_path / "one", "test").prompt).isdisjoint(read_part(tmp_path / "other", "test").prompt)


def test_tables_have_the_columns_sizes_and_pictures_that_they_promise(demo: Path) -> None:
    for part, size in FEW.items():
        table = read_part(demo, part)
        assert list(table) == ["image", "prompt", "prompt_style", *DIMENSIONS, "generator"]
        assert len(table) == size
        assert all((demo / image).is_file() for image in table.image)
    with Image.open(demo / read_part(demo, "val").image[0]) as picture:
        assert (picture.size, picture.mode) == ((512, 512), "RGB")
    protocol = json.loads((demo / "splits" / "prompt-disjoint" / "protocol.json").read_text())
    assert protocol.keys() == {"dataset", "protocol", "seed", "sha256"}
    assert set(SIZES) == set(FEW) == set(PARTS) - {"pretraining"}


def test_every_generator_and_prompt_style_occurs_and_mos_fill_their_scale(demo: Path) -> None:
    table = pd.concat([read_part(demo, part) for part in FEW])
    assert set(table.generator) == set(GENERATORS)
    assert len(GENERATORS) >= 6
    assert set(table.prompt_style) == set(STYLES)
    assert table[DIMENSIONS].ge(0).all(axis=None)
    assert table[DIMENSIONS].le(5).all(axis=None)
    assert (table[DIMENSIONS].std() > 0.8).all()


def test_no_prompt_is_in_two_parts(demo: Path) -> None:
    prompts = {part: set(read_part(demo, part).prompt) for part in FEW}
    assert sum(map(len, prompts.values())) == len(set.union(*prompts.values()))


def test_a_content_belongs_to_one_part_whatever_its_wording_and_order() -> None:
    for part in PARTS:
        for content in contents(part, 50):
            turned = content.relation and RELATIONS[content.relation]
            if turned or not content.relation:
                backwards = Content(content.groups[::-1], turned, *content.setting)
                assert part_of(content) == part_of(backwards) == part


def test_captions_of_the_pretraining_never_name_a_content_of_another_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    others = 0
    named: list[Content] = []
    monkeypatch.setattr(demo_captions, "write_prompt", lambda it, style: named.append(it) or write_prompt(it, style))
    monkeypatch.setattr(demo_captions, "claims_of", lambda it: named.append(it) or claims_of(it))
    for content in contents("pretraining", 60):
        damage = sample_damage(GENERATORS["glimmer"], rng)
        picture = draw(as_asked(content), damage, rng)
        for window in (WHOLE, (0, 0, 384), (128, 64, 384), (100, 100, 200)):
            view = describe(content, damage, picture, window)
            told = [caption(view, rng) for _ in range(10)]
            assert all(claims <= view.facts for _, claims in told), told
            if view.shown and part_of(view.shown) != "pretraining":
                others += 1
            for _ in range(5):
                choose(view, rng)
                arrange(view, rng)
    assert others > 20  # views show them
    assert len(named) > 6000
    assert {part_of(content) for content in named} == {"pretraining"}


def test_of_the_captions_to_choose_from_the_first_alone_is_true() -> None:
    rng = np.random.default_rng(2)
    asked = 0
    for content in contents("pretraining", 60):
        view = describe(content, Damage(), draw(as_asked(content), Damage(), rng), WHOLE)
        assert view.shown == content or view.shown == replace(content, relation=view.shown.relation)
        true = {write_prompt(one, style) for one in everything_less(view.shown) for style in STYLES}
        true |= {f"{with_article(look)} picture" for look in view.looks}
        for first, *others in filter(None, (choose(view, rng) for _ in range(3))):
            assert first in true
            assert not true & set(others)
            asked += len(others)
    assert asked > 500


def test_captions_of_places_name_the_same_two_groups_and_the_first_alone_is_true() -> None:
    rng = np.random.default_rng(3)
    for relation, inverse in RELATIONS.items():
        told = 0
        for content in (it for it in contents("pretraining", 200) if it.relation == relation):
            view = describe(content, Damage(), draw(as_asked(content), Damage(), rng), WHOLE)
            sayings = [(content.groups, relation)] + [(content.groups[::-1], inverse)] * bool(inverse)
            true = {
                write_prompt(Content(groups, said, *setting), style)
                for groups, said in sayings
                for setting in product(*((None, it) for it in content.setting))
                for style in STYLES
            }
            for first, *others in filter(None, (arrange(view, rng) for _ in range(4))):
                told += 1
                assert first in true
                assert not true & set(others)
                assert {re.sub("|".join(RELATIONS), "", other) for other in (first, *others)} == {
                    re.sub("|".join(RELATIONS), "", first)
                }
                if relation == "behind":
                    assert all("above" in other or "below" in other for other in others)
        assert told > 10


def everything_less(content: Content) -> Iterator[Content]:
    """The content, and all that is left of it when anything is not said."""
    settings = list(product(*((None, it) for it in content.setting)))
    for number in range(1, len(content.groups) + 1):
        for groups in combinations(content.groups, number):
            for relation in {None, content.relation if groups == content.groups else None}:
                yield from (Content(groups, relation, *setting) for setting in settings)


def test_a_prompt_names_every_element_in_every_style() -> None:
    for content in contents("train", 100):
        for style in STYLES:
            prompt = write_prompt(content, style).lower()
            medium = MEDIA[content.medium].phrase if content.medium and style == "sentence" else content.medium
            words = (*(group.words for group in content.groups), content.relation, content.scene, medium, content.light)
            assert all(word in prompt for word in words if word)
    assert write_prompt(Content((Group("orange", "cup"),)), "sentence") == "An orange cup."
    written = [write_prompt(SCENE, style) for style in STYLES]
    assert written == [
        "red house left of two blue cats, grassy meadow, golden light",
        "a red house left of two blue cats in a grassy meadow, golden light",
        "A red house is left of two blue cats in a grassy meadow, in golden light.",
    ]


@pytest.mark.parametrize("relation", RELATIONS)
def test_things_stand_as_the_prompt_says(relation: str) -> None:
    for seed in range(5):
        asked = Drawn((Group("red", "house"), Group("blue", "bird")), relation)
        picture = draw(asked, Damage(), np.random.default_rng(seed))
        first, second = (next(f for f in picture.figures if f.group == number) for number in (0, 1))
        holds = {
            "above": first.y + 100 < second.y,
            "below": first.y > second.y + 100,
            "left of": first.x + 100 < second.x,
            "right of": first.x > second.x + 100,
            "behind": picture.figures == [first, second] and covered(picture, first) > 0.05,
        }
        assert holds[relation]


def covered(picture: Picture, back: Figure) -> float:
    """The share of a figure's box that shows the other group."""
    top, left = int(back.y - back.side / 2), int(back.x - back.side / 2)
    box = (slice(top, int(top + back.side)), slice(left, int(left + back.side)))
    return float(picture.mask(1 - back.group)[box].mean())


def test_counts_colours_and_masks_are_those_of_the_picture() -> None:
    for count in range(1, 6):
        asked = Content((Group("red", "apple", count),))
        picture = draw(as_asked(asked), Damage(), np.random.default_rng(count))
        assert len(picture.figures) == count
        inside = picture.pixels[picture.mask(0)].astype(int)
        assert (inside[:, 0] > inside[:, 2] + 40).mean() > 0.5  # red
        assert 0.01 * count < picture.mask(0).mean() < 0.5


def test_masks_follow_what_melts() -> None:
    melted = draw(as_asked(Content((Group("red", "house"),))), Damage(melt=0.9), np.random.default_rng(0))
    red = melted.pixels[..., 0].astype(int) > melted.pixels[..., 2].astype(int) + 60
    assert melted.mask(0)[red].mean() > 0.95


@pytest.mark.parametrize("name", QUALITY_DAMAGES)
def test_more_damage_of_the_picture_lowers_quality_alone(name: str) -> None:
    levels = [Damage(**{name: level}) for level in (0, 0.2, 0.5, 0.9)]
    quality = [rate(damage.quality, np.random.default_rng(0)) for damage in levels]
    assert quality == sorted(quality, reverse=True)
    assert quality[0] - quality[-1] > 3
    assert {damage.authenticity for damage in levels} == {1}


@pytest.mark.parametrize("name", AUTHENTICITY_DAMAGES)
def test_more_disfigurement_lowers_authenticity_alone(name: str) -> None:
    levels = [Damage(**{name: level}) for level in (0, 0.2, 0.5, 0.9)]
    authenticity = [rate(damage.authenticity, np.random.default_rng(0)) for damage in levels]
    assert authenticity == sorted(authenticity, reverse=True)
    assert authenticity[0] - authenticity[-1] > 3
    assert {damage.quality for damage in levels} == {1}


def test_damage_outlives_the_squeeze_to_the_models_input() -> None:
    def drawn(**levels: float) -> np.ndarray:
        return draw(as_asked(SCENE), Damage(**levels), np.random.default_rng(3)).pixels

    details = [detail(drawn(blur=level)) for level in (0, 0.15, 0.5, 1)]
    assert details == sorted(details, reverse=True)
    grains = [detail(drawn(noise=level)) for level in (0, 0.15, 0.5, 1)]
    assert grains == sorted(grains)
    fades = [float(drawn(fade=level).std()) for level in (0, 0.15, 0.5, 1)]
    assert fades == sorted(fades, reverse=True)
    clean = views_of(drawn())
    for name in (*QUALITY_DAMAGES, *AUTHENTICITY_DAMAGES):
        views = views_of(drawn(**{name: 0.5}))
        assert (views - clean).abs().mean((1, 2, 3)).min() > 0.01, name  # in every one of the ten views


def test_correspondence_is_the_share_of_the_prompt_that_was_drawn() -> None:
    house, cats = SCENE.groups
    assert true_correspondence(SCENE, as_asked(SCENE)) == 1
    nothing = Drawn((None, None))
    assert true_correspondence(SCENE, nothing) == 0

    def shown(second: Group | None, relation: str = "left of", scene: str = "grassy meadow") -> float:
        return true_correspondence(SCENE, Drawn((house, second), relation, scene, None, SCENE.light))

    shares = [
        true_correspondence(SCENE, as_asked(SCENE)),
        shown(cats, "right of"),
        shown(Group("blue", "cat", 3), "right of"),
        shown(Group("green", "cat", 2), "right of"),
        shown(Group("green", "cat", 3), "right of"),
        shown(None),
        shown(None, scene="desert"),
        true_correspondence(SCENE, nothing),
    ]
    assert shares == sorted(set(shares), reverse=True)
    rng = np.random.default_rng(0)
    assert make_mistakes(SCENE, 0, rng) == as_asked(SCENE)
    assert true_correspondence(SCENE, make_mistakes(SCENE, 1, rng)) < 0.4


def test_raters_disagree_but_keep_to_the_scale() -> None:
    rng = np.random.default_rng(0)
    marks = [rate(share, rng) for share in (0.0, 1.0) for _ in range(200)]
    assert len(set(marks)) > 100
    assert min(marks) >= 0
    assert max(marks) <= 5


def test_a_killed_run_leaves_no_half_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mgs.demo.write.write_json", fail)
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "demo", sizes={"train": 3, "val": 3, "test": 3})
    assert list(tmp_path.iterdir()) == []


def test_an_older_dataset_is_never_overwritten(demo: Path) -> None:
    before = all_files(demo)
    with pytest.raises(UserError, match="something in it"):
        write_demo(demo, sizes=FEW)
    assert all_files(demo) == before
    with pytest.raises(UserError, match=r"train\.csv: is a file"):
        write_demo(demo / "splits" / "prompt-disjoint" / "1" / "train.csv", sizes=FEW)


def test_drawings_may_go_to_the_empty_folder_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_demo(Path(), sizes=ONE_EACH)
    write_demo(tmp_path / "again", sizes=ONE_EACH)
    again = all_files(tmp_path / "again")
    assert {name: content for name, content in all_files(Path()).items() if not name.startswith("again")} == again


def test_the_demo_clip_is_small_and_says_how_it_was_made() -> None:
    assert ASSET.stat().st_size <= MAX_ASSET_BYTES
    with safe_open(ASSET, framework="pt") as weights:
        metadata = weights.metadata()
        about = json.loads(metadata.pop("about"))
        assert not metadata  # safetensors writes several entries in a random order: the same weights, another SHA-256
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}  # noqa: SIM118
    assert about["made_by"] == "scripts/pretrain_demo_clip.py"
    assert {"seed", "steps", "lr", "muon_lr", "data"} <= about.keys()


def test_the_demo_clip_loads_into_openais_architecture_and_tells_colours_shapes_numbers_places_scenes() -> None:
    import clip

    model = openai_module(load_backbone("demo").state_dict())
    with torch.no_grad():
        found = probe(
            lambda views: normalize(model.encode_image(views), dim=-1),
            lambda texts: normalize(model.encode_text(clip.tokenize(list(texts))), dim=-1),
            number=12,
            seed=1,
        )
    assert all(found[kind] > least for kind, least in KNOWN.items()), found
