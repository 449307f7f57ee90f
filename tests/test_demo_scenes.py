"""The demo's scenes, media and light: canvases in range, with a horizon, that follow from the generator alone."""

import numpy as np
import pytest

from mgs.demo.canvas import SIDE
from mgs.demo.drawing import paint_figure
from mgs.demo.layout import Figure
from mgs.demo.light import LIGHTS, paint_light
from mgs.demo.media import MEDIA, apply_medium
from mgs.demo.scenes import SCENES, paint_scene

MEAN_SHIFT = 60  # levels of 255, by which a medium may move a channel's mean; bare paper brightens a picture


def _check(canvas: np.ndarray) -> None:
    assert canvas.shape == (SIDE, SIDE, 3)
    assert canvas.dtype == np.float32
    assert canvas.min() >= 0
    assert canvas.max() <= 255


@pytest.mark.parametrize("name", [None, *SCENES])
def test_a_scene_is_a_canvas_with_a_horizon_and_follows_from_its_seed(name: str | None) -> None:
    canvas, horizon = paint_scene(name, np.random.default_rng(1))
    _check(canvas)
    assert 150 <= horizon <= 420
    again, same = paint_scene(name, np.random.default_rng(1))
    np.testing.assert_array_equal(canvas, again)
    assert horizon == same
    assert np.abs(canvas - paint_scene(name, np.random.default_rng(2))[0]).mean() > 2


@pytest.mark.parametrize("name", [None, *SCENES])
def test_every_seed_paints(name: str | None) -> None:
    for seed in range(6):
        canvas, horizon = paint_scene(name, np.random.default_rng((3, seed)))
        _check(canvas)
        assert 150 <= horizon <= 420
        assert 45 < canvas.mean() < 215  # black things and white things both stand out


def test_scenes_differ_from_one_another_when_small() -> None:
    small = {name: _small(paint_scene(name, np.random.default_rng(0))[0]) for name in SCENES}
    for name, picture in small.items():
        for other in list(small)[list(small).index(name) + 1 :]:
            assert np.abs(picture - small[other]).mean() > 15, (name, other)


def _small(canvas: np.ndarray) -> np.ndarray:
    return canvas[: SIDE // 5 * 5, : SIDE // 5 * 5].reshape(102, 5, 102, 5, 3).mean((1, 3))


@pytest.mark.parametrize("scene", ["grassy meadow", "deep water", "living room"])
@pytest.mark.parametrize("name", MEDIA)
def test_a_medium_keeps_colours_and_can_be_seen_when_small(name: str, scene: str) -> None:
    canvas, _ = paint_scene(scene, np.random.default_rng(0))
    owner = np.full((SIDE, SIDE), -1, dtype=np.int8)
    paint_figure(canvas, owner, (0, Figure("red", "house", 256, 300, 230, 0, 0)), 0, np.random.default_rng(0))
    before = canvas.copy()
    made = apply_medium(canvas, name, np.random.default_rng(1))
    _check(made)
    np.testing.assert_array_equal(canvas, before)
    np.testing.assert_array_equal(made, apply_medium(canvas, name, np.random.default_rng(1)))
    assert np.abs(made.mean((0, 1)) - canvas.mean((0, 1))).max() < MEAN_SHIFT
    assert np.abs(_small(made) - _small(canvas)).mean() > 5
    red, green, blue = made[300:320, 190:215].mean((0, 1))  # a piece of the house's wall
    assert red > green + 60
    assert red > blue + 60


@pytest.mark.parametrize("name", LIGHTS)
def test_light_is_visible_and_follows_from_its_seed(name: str) -> None:
    canvas, horizon = paint_scene("grassy meadow", np.random.default_rng(0))
    before = canvas.copy()
    lit = paint_light(canvas, name, np.random.default_rng(1), horizon)
    _check(lit)
    np.testing.assert_array_equal(canvas, before)
    np.testing.assert_array_equal(lit, paint_light(canvas, name, np.random.default_rng(1), horizon))
    assert np.abs(_small(lit) - _small(canvas)).mean() > 8


def test_fog_is_thicker_at_the_horizon_than_at_the_bottom() -> None:
    canvas, horizon = np.zeros((SIDE, SIDE, 3), np.float32), 300
    foggy = paint_light(canvas, "fog", np.random.default_rng(0), horizon)
    assert foggy[horizon].mean() > foggy[-1].mean() + 50


def test_nothing_asked_for_changes_nothing() -> None:
    canvas, horizon = paint_scene(None, np.random.default_rng(0))
    assert apply_medium(canvas, None, np.random.default_rng(1)) is canvas
    assert paint_light(canvas, None, np.random.default_rng(1), horizon) is canvas


def test_names_and_words_are_unique() -> None:
    words = [*SCENES, *LIGHTS, *(medium.words for medium in MEDIA.values())]
    assert len(words) == len(set(words))
    phrases = [row.phrase for row in (*MEDIA.values(), *LIGHTS.values())]
    assert len(phrases) == len(set(phrases))
    assert len(SCENES) == 14
