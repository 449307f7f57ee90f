"""Find the prompt in a ComfyUI graph: from the last sampler, against the arrows, to the text that it follows.

Graphs come from strangers, so every value may be of any type, links may form circles, and the steps are counted.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_NODES = 20_000
MAX_INPUTS = 500  # of a node
MAX_STEPS = 2000  # from node to node
MAX_DEPTH = 100
MAX_LENGTH = 1 << 17  # characters; a chain of nodes that double a text reaches any length
OUTPUT = re.compile(r"(?:save|preview|display).*(?:image|anim|webp|video)|image ?saver?", re.IGNORECASE)
SAMPLER = re.compile(r"sampler|detailer", re.IGNORECASE)
ENCODER = re.compile(r"text ?(?:encode|box)|showtext|promptstash", re.IGNORECASE)
EMPTIES = re.compile(r"zero ?out", re.IGNORECASE)
GUIDED = re.compile(r"sampler|detailer|guider", re.IGNORECASE)
LEADS = re.compile(r"conditioning\w*|cond\d*|guider|text_embeds|positive|negative")  # from a sampler to its texts
LONG_TEXTS = ("t5xxl", "llama")  # where an encoder has one of them, the other texts are its keywords
ENCODED = (*LONG_TEXTS, "text", "text_g", "text_l", "clip_l", "clip_g", "clip_h", "prompt")  # an encoder's texts
TEXT = re.compile(
    r"(?:text|string|prompt)_?(?:[a-z]|\d{1,3})?|value|prompt_text|positive(?:_prompt)?|source|on_true|on_false"
    r"|any\w{0,4}|input\d?",
    re.IGNORECASE,
)
FIRST = ("text_0", "text_positive")  # what ShowText has shown, and a styler's; their other texts are not the prompt
WIDGETS = {  # where the texts lie in an editor's node, which names no widget; others have their only text first
    "CLIPTextEncodeFlux": {"clip_l": 0, "t5xxl": 1},
    "CLIPTextEncodeSDXL": {"text_g": 6, "text_l": 7},
    "CLIPTextEncodeSDXLRefiner": {"text": 3},
    "CLIPTextEncodeSD3": {"clip_l": 0, "clip_g": 1, "t5xxl": 2},
}
MUTED, BYPASSED = 2, 4  # modes of an editor's node


@dataclass(frozen=True)
class Node:
    """What is done, and with what: values, or links (the other node's name and which of its outputs)."""

    kind: str
    title: str
    inputs: Mapping[str, Any]


class Exhausted(Exception):
    """A graph in which too many steps lead nowhere."""


class Graph:
    """A graph as the server runs it, or as the editor saves it."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        made = from_editor(content) if isinstance(content.get("nodes"), list) else from_server(content)
        self.nodes, self.steps = dict(made), 0

    def prompts(self) -> tuple[str, str] | None:
        """The texts that the sampler nearest to the output follows and avoids; None where no text is found.

        Without such a way, the text of the only encoder that has one.
        """
        try:
            for sampler in self.samplers():
                if positive := self.conditioning(sampler, "positive", set()):
                    return positive, self.conditioning(sampler, "negative", set())
            encoders = [n for n in self.nodes.values() if ENCODER.search(n.kind) and "neg" not in n.title.lower()]
            texts = dict.fromkeys(filter(None, (self.encoded(node, "positive") for node in encoders)))
        except (Exhausted, RecursionError):
            return None
        return (next(iter(texts)), "") if len(texts) == 1 else None

    def samplers(self) -> Iterator[Node]:
        """The samplers, those nearest to an output first, then what leads to no output."""
        waiting = deque(node for node in self.nodes.values() if OUTPUT.search(node.kind))
        seen = {id(node) for node in waiting}
        while waiting:
            node = waiting.popleft()
            if is_sampler(node):
                yield node
            for after in filter(None, map(self.linked, node.inputs.values())):
                if id(after) not in seen:
                    seen.add(id(after))
                    waiting.append(after)
        yield from (node for node in reversed(self.nodes.values()) if is_sampler(node) and id(node) not in seen)

    def linked(self, value: Any) -> Node | None:
        """The node that a link comes from; None for a value."""
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)):
            return self.nodes.get(str(value[0]))
        return None

    def step(self) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Exhausted

    def conditioning(self, node: Node, side: str, seen: set[int]) -> str:
        """The texts behind a node of conditioning, each once, by links that lead to the side."""
        if id(node) in seen or len(seen) > MAX_DEPTH or EMPTIES.search(node.kind):
            return ""
        self.step()
        seen.add(id(node))
        if not GUIDED.search(node.kind) and (text := self.encoded(node, side)):
            return text
        links = {name: after for name, value in node.inputs.items() if (after := self.linked(value))}
        ways = {name: after for name, after in links.items() if LEADS.fullmatch(name)}
        if side in ways:
            ways = {side: ways[side]}
        elif GUIDED.search(node.kind):  # what has one conditioning follows it, and avoids nothing
            ways = {name: after for name, after in ways.items() if side == "positive" or name == "guider"}
        elif len(links) == 1:  # such as a reroute
            ways = links
        elif not ways:
            return self.joined(node, MAX_DEPTH)
        return join([self.conditioning(after, side, seen) for after in ways.values()], ", ")

    def encoded(self, node: Node, side: str) -> str:
        """The text of an encoder; "" for other nodes. A link to a side is conditioning, not text."""
        names = [name for name in (*ENCODED, f"{side}_prompt") if name in node.inputs]
        names += [side] if isinstance(node.inputs.get(side), str) else []
        texts = {name: self.text(node.inputs[name], MAX_DEPTH) for name in names}
        longest = [texts[name] for name in LONG_TEXTS if texts.get(name)]
        return join(longest[:1] or list(texts.values()), ", ")

    def text(self, value: Any, depth: int) -> str:
        """A value that is text, or the text of the node that it comes from."""
        if isinstance(value, str):
            return value.strip()[:MAX_LENGTH]
        node = self.linked(value)
        if node is None:
            return ""
        if not depth:
            raise Exhausted
        self.step()
        return self.joined(node, depth - 1)

    def joined(self, node: Node, depth: int) -> str:
        """The texts that a node holds or is given, joined as it joins them."""
        inputs = dict(node.inputs)
        if isinstance(inputs.get("switch"), bool):
            inputs.pop("on_false" if inputs["switch"] else "on_true", None)
        names = [name for name in FIRST if inputs.get(name)][:1] or [name for name in inputs if TEXT.fullmatch(name)]
        between = inputs.get("delimiter")
        texts = [self.text(inputs[name], depth) for name in names]
        return join(texts, between if isinstance(between, str) and len(between) <= 10 else ", ", repeat=True)


def is_sampler(node: Node) -> bool:
    """Whether a node makes an image after a text, and does not merely choose how samplers work."""
    return bool(SAMPLER.search(node.kind)) and any(
        name in node.inputs for name in ("positive", "guider", "text_embeds")
    )


def join(texts: list[str], between: str, *, repeat: bool = False) -> str:
    """Texts as one, those that are equal once unless they may `repeat`."""
    found = [text for text in texts if text]
    return between.join(found if repeat else dict.fromkeys(found))[:MAX_LENGTH]


def from_server(content: Mapping[str, Any]) -> Iterator[tuple[str, Node]]:
    """The nodes of a graph as the server runs it, by name."""
    for name, node in list(content.items())[:MAX_NODES]:
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict) and len(node["inputs"]) <= MAX_INPUTS:
            meta = node.get("_meta")
            title = meta.get("title", "") if isinstance(meta, dict) else ""
            yield name, Node(str(node.get("class_type", "")), str(title), node["inputs"])


def from_editor(content: Mapping[str, Any]) -> Iterator[tuple[str, Node]]:
    """The nodes of a graph as the editor saves it; muted ones are left out, and bypassed ones lead on."""
    links = content.get("links")
    rows = [link for link in links if isinstance(link, list) and len(link) >= 5] if isinstance(links, list) else []
    origin = {link[0]: [str(link[1]), link[2]] for link in rows if isinstance(link[0], int)}
    for node in content["nodes"][:MAX_NODES]:
        if not isinstance(node, dict) or node.get("mode") == MUTED:
            continue
        kind = str(node.get("type", ""))
        inputs: dict[str, Any] = {}
        slots, widgets = (node.get(name) for name in ("inputs", "widgets_values"))
        if isinstance(widgets, list) and node.get("mode") != BYPASSED:
            known = WIDGETS.get(kind, {"text": 0})
            inputs |= {key: widgets[at] for key, at in known.items() if at < len(widgets)}
        for slot in slots[:MAX_INPUTS] if isinstance(slots, list) else []:
            if isinstance(slot, dict) and isinstance(slot.get("link"), int) and slot["link"] in origin:
                inputs[str(slot.get("name", ""))] = origin[slot["link"]]
        kind = "bypassed" if node.get("mode") == BYPASSED else kind
        yield str(node.get("id")), Node(kind, str(node.get("title", "")), inputs)
