"""Scores as the server tells them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mgs import __version__
from mgs.dimensions import DIMENSIONS, MOS_MAX
from mgs.machine import PRECISIONS
from mgs.scoring.explanation import can_explain
from mgs.scoring.mix import Mix
from mgs.scoring.scorer import Scorer
from mgs.scoring.wording import LEVEL_WORDS, level_word
from mgs.serve.service import Answer, Service
from mgs.sources.item import Item


def entry(answer: Answer, index: int, dimensions: Iterable[str] | None = None) -> dict[str, Any]:
    """One image's answer, as `schemas.Entry` has it, with these dimensions alone."""
    told = {dimension: getattr(answer.score, dimension) for dimension in DIMENSIONS}
    wanted = set(DIMENSIONS if dimensions is None else dimensions)
    scores = {dimension: value for dimension, value in told.items() if value is not None and dimension in wanted}
    return {
        "index": index,
        "name": answer.item.image,
        "prompt": answer.item.prompt,
        "prompt_read": answer.item.text,
        "scores": scores,
        "levels": {dimension: level_word(dimension, value) for dimension, value in scores.items()},
        "labels": dict(answer.score.labels),
        "status": answer.score.status,
        "explanation": answer.explanation,
    }


def rank_by(answers: Sequence[Answer], scorer: Scorer) -> str:
    """The dimension that images are ranked by if none is named."""
    prompted = any(answer.item.text and answer.item.text.strip() for answer in answers)
    return "correspondence" if prompted and "correspondence" in scorer.scored else scorer.scored[0]


def rank(answers: Sequence[Answer], by: str, dimensions: Iterable[str] | None) -> list[dict[str, Any]]:
    """Images' answers, the best first, as `schemas.Ranked` has them; those without a score last."""
    values = [getattr(answer.score, by) for answer in answers]
    order = sorted(range(len(answers)), key=lambda i: (values[i] is None, -(values[i] or 0)))
    ranks = {i: place for place, i in enumerate(order, start=1) if values[i] is not None}
    return [{**entry(answers[i], i, dimensions), "rank": ranks.get(i)} for i in order]


def found_prompt(item: Item, index: int) -> dict[str, Any]:
    """The prompt that a file holds, as `schemas.FoundPrompt` has it."""
    place = item.origin.place if item.origin else None
    return {"index": index, "name": item.image, "prompt": item.prompt, "prompt_read": item.text, "place": place}


def info(service: Service, mix: Mix) -> dict[str, Any]:
    """What is served: checkpoints with their dimensions and ranges, the reward's mix, and limits."""
    limits = service.limits
    return {
        "version": __version__,
        "checkpoints": [describe(name, scorer, service.styles[name]) for name, scorer in service.scorers.items()],
        "reward": {"weights": dict(mix.weights), "range": [0, 1]},
        "limits": {name: getattr(limits, name) for name in ("images", "bytes", "pixels", "seconds", "queue")},
    }


def describe(name: str, scorer: Scorer, style: str) -> dict[str, Any]:
    """A checkpoint, and what it gives."""
    machine, method = scorer.engine.machine, scorer.model
    return {
        "name": name,
        "scored_by": scorer.name,
        "method": scorer.source.method,
        "dimensions": list(scorer.scored),
        "range": [0, MOS_MAX],
        "levels": {dimension: list(LEVEL_WORDS[dimension]) for dimension in scorer.scored},
        "needs_prompt": sorted(method.needs_prompt & set(scorer.scored)),
        "explains": can_explain(method),
        "prompt_style": style,
        "fingerprint": scorer.source.fingerprint,
        "device": str(machine.device),
        "precision": next(name for name, dtype in PRECISIONS.items() if dtype == machine.dtype),
    }
