"""Pictures are decoded once, wherever they are kept, and never served stale."""

import numpy as np
import pytest
import torch
from PIL import Image

from mgs.errors import UserError
from mgs.images import cache as module
from mgs.images.cache import ImageCache, Room, remove_cache
from mgs.images.decode import read_image

CPU = torch.device("cpu")
PLACES = ["auto", "ram", "disk", "none"]


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / "own" / f"{i}.png" for i in range(3)]
    paths[0].parent.mkdir()
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, in order."""
    names = []
    decode = module.decode_image

    def count(data, path, fit):
        names.append(path.name)
        return decode(data, path, fit)

    monkeypatch.setattr(module, "decode_image", count)
    return names


@pytest.mark.parametrize("place", PLACES)
def test_a_picture_is_the_same_wherever_it_is_kept(pictures, tmp_path, place):
    cache = ImageCache(tmp_path / "cache")
    assert cache.fill(pictures, place, CPU) == {}
    for path in pictures:
        assert torch.equal(cache.read(path), read_image(path))
    assert (tmp_path / "cache").exists() == (place == "disk")


def test_filling_again_decodes_nothing_and_another_name_for_the_same_content_neither(pictures, tmp_path, decoded):
    cache = ImageCache(tmp_path / "cache")
    cache.fill(pictures, "ram", CPU)
    assert len(decoded) == 3
    other = tmp_path / "copy.png"
    other.write_bytes(pictures[0].read_bytes())
    cache.fill([*pictures, other], "ram", CPU)
    assert len(decoded) == 3
    assert torch.equal(cache.read(other), cache.read(pictures[0]))


def test_the_next_run_finds_on_disk_what_this_one_decoded(pictures, tmp_path, decoded):
    ImageCache(tmp_path / "cache").fill(pictures, "disk", CPU)
    again = ImageCache(tmp_path / "cache")
    again.fill(pictures, "disk", CPU)
    assert len(decoded) == 3
    assert torch.equal(again.read(pictures[1]), read_image(pictures[1]))


@pytest.mark.parametrize("place", ["ram", "disk"])
def test_a_changed_file_is_decoded_again(pictures, tmp_path, place):
    cache = ImageCache(tmp_path / "cache")
    cache.fill(pictures, place, CPU)
    Image.new("RGB", (600, 600), "red").save(pictures[0])
    cache.fill(pictures, place, CPU)
    assert cache.read(pictures[0])[:, 0, 0].tolist() == [255, 0, 0]


def test_another_way_of_decoding_finds_nothing_of_the_old(pictures, tmp_path, decoded, monkeypatch):
    ImageCache(tmp_path / "cache").fill(pictures, "disk", CPU)
    monkeypatch.setattr(module, "DECODING", "another")
    ImageCache(tmp_path / "cache").fill(pictures, "disk", CPU)
    assert len(decoded) == 6


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(file.read_bytes()[:900]), lambda file: file.unlink()])
def test_what_a_crash_or_a_clean_up_left_on_disk_is_made_again(pictures, tmp_path, damage):
    cache = ImageCache(tmp_path / "cache")
    cache.fill(pictures, "disk", CPU)
    for file in list((tmp_path / "cache").rglob("*.npy")):
        damage(file)
    assert torch.equal(cache.read(pictures[0]), read_image(pictures[0]))  # in the middle of a run
    again = ImageCache(tmp_path / "cache")
    again.fill(pictures, "disk", CPU)
    assert torch.equal(again.read(pictures[0]), read_image(pictures[0]))


def test_a_picture_that_is_changed_by_its_reader_stays_as_it_was_on_disk(pictures, tmp_path):
    cache = ImageCache(tmp_path / "cache")
    cache.fill(pictures, "disk", CPU)
    cache.read(pictures[0]).zero_()
    assert torch.equal(cache.read(pictures[0]), read_image(pictures[0]))


def test_pictures_go_to_the_first_place_with_room_and_the_rest_is_decoded_again(pictures, tmp_path, monkeypatch):
    one = read_image(pictures[0]).nbytes
    rooms = [Room("ram", 1.5 * one), Room("disk", 1.5 * one)]
    cache = ImageCache(tmp_path / "cache")
    monkeypatch.setattr(cache, "find_rooms", lambda place, device: rooms)
    monkeypatch.setattr(module, "DECODERS", 1)
    cache.fill(pictures, "auto", CPU)
    assert len(cache.pictures) == 1
    assert len(cache.on_disk) == 1
    for path in pictures:
        assert torch.equal(cache.read(path), read_image(path))


def test_the_rule_leaves_three_quarters_of_the_memory_and_half_of_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    monkeypatch.setattr(module, "free_disk", lambda folder: 5000)
    assert ImageCache(tmp_path).find_rooms("auto", CPU) == [Room("ram", 250), Room("disk", 2500)]
    assert ImageCache(tmp_path).find_rooms("none", CPU) == []
    assert ImageCache(tmp_path).find_rooms("ram", CPU) == [Room("ram", float("inf"))]
    with pytest.raises(UserError, match=r"data\.cache=gpu: the device is cpu"):
        ImageCache(tmp_path).find_rooms("gpu", CPU)


@pytest.mark.parametrize("place", PLACES)
def test_every_bad_file_is_found_with_its_reason(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("RGB", (600, 600), "red").save(tmp_path / "good.png")
    names = ("folder", "text.jpg", "good.png", "absent.png")
    bad = ImageCache(tmp_path / "cache").fill([tmp_path / name for name in names] * 2, place, CPU)
    assert {path.name for path in bad} == {"folder", "text.jpg", "absent.png"}
    assert bad[tmp_path / "absent.png"].endswith("absent.png: no such file")
    assert bad[tmp_path / "text.jpg"].endswith("not a whole image (no image format that is read here)")


def test_cleaning_leaves_all_that_is_not_the_caches_own(pictures, tmp_path):
    """Datasets call their folder of pictures images, as the cache does."""
    dataset = tmp_path / "AGIQA-3K"
    own = dataset / "images" / "a.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"a picture")
    with pytest.raises(UserError, match=r"images: has no CACHEDIR\.TAG, so it is no cache of ours and stays"):
        remove_cache(dataset)
    ImageCache(dataset).fill(pictures, "disk", CPU)  # as with data.cache_folder=data/AGIQA-3K
    assert remove_cache(dataset) > 3 * 512 * 512 * 3
    assert sorted(dataset.rglob("*")) == [dataset / "images", dataset / "images" / "CACHEDIR.TAG", own]
    ImageCache(tmp_path / "cache").fill(pictures, "disk", CPU)
    remove_cache(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
