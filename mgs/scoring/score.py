"""What a scorer says about one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError

OK, ERROR = "ok", "error: "


@dataclass(frozen=True)
class Score:
    """One image's scores on MOS's 0-5 scale, higher is better, never clamped; None where there is no score."""

    quality: float | None
    authenticity: float | None
    correspondence: float | None
    overall: float | None
    status: str  # "ok", perhaps with remarks after a colon; "error: ..." where nothing could be scored
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)  # what the method tells besides

    @property
    def failed(self) -> bool:
        """Whether the image could not be scored."""
        return self.status.startswith(ERROR)

    def with_remark(self, remark: str) -> Score:
        """The score with one more remark in its status; a failure keeps to its reason."""
        return (
            self if self.failed else replace(self, status=f"{self.status}{': ' if self.status == OK else '; '}{remark}")
        )


def columns(labels: Iterable[str] = (), *, prompt_read: bool = False) -> list[str]:
    """The columns of a table of scores, with those of a method's labels, and what was read of prompts if asked for."""
    return ["image", "prompt", *(["prompt_read"] if prompt_read else []), *DIMENSIONS, *labels, "status"]


def as_row(image: str, prompt: str | None, score: Score) -> dict[str, Any]:
    """A row of that table, by column."""
    scores: dict[str, Any] = {dimension: getattr(score, dimension) for dimension in DIMENSIONS}
    return {"image": image, "prompt": prompt, **scores, **score.labels, "status": score.status}


def raise_failure(score: Score) -> Score:
    """The score itself; one that failed raises a `UserError` with the reason."""
    if score.failed:
        raise UserError(score.status.removeprefix(ERROR))
    return score


def raise_bad(scores: Sequence[Score]) -> None:
    """Raise a `ValueError` that names the images that could not be scored, for callers that take `on_bad`."""
    if bad := [(number, score.status) for number, score in enumerate(scores) if score.failed]:
        number, status = bad[0]
        remedy = "on_bad='nan' gives NaN for these"
        raise ValueError(f"image {number}, and {len(bad) - 1} others of {len(scores)}: {status}; {remedy}")


def failure(reason: str) -> Score:
    """The score of an image that has none."""
    return Score(None, None, None, None, f"{ERROR}{reason}")
