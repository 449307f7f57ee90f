"""Every thing that the demo can draw, by its name in a prompt."""

from __future__ import annotations

from mgs.demo.things.animals import ANIMALS
from mgs.demo.things.buildings import BUILDINGS
from mgs.demo.things.food import FOOD
from mgs.demo.things.objects import OBJECTS
from mgs.demo.things.parts import Thing
from mgs.demo.things.plants import PLANTS
from mgs.demo.things.vehicles import VEHICLES

THINGS: dict[str, Thing] = {**ANIMALS, **VEHICLES, **PLANTS, **BUILDINGS, **FOOD, **OBJECTS}
