"""What the demo's pictures show: animals, vehicles, plants, buildings, food and objects, as painted outlines."""
