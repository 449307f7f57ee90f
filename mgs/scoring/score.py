"""What a scorer says about one image."""

from __future__ import annotations

from dataclasses import dataclass, fields

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

    @property
    def failed(self) -> bool:
        """Whether the image could not be scored."""
        return self.status.startswith(ERROR)


COLUMNS = ["image", "prompt", *(field.name for field in fields(Score))]


def raise_failure(score: Score) -> Score:
    """The score itself; one that failed raises a `UserError` with the reason."""
    if score.failed:
        raise UserError(score.status.removeprefix(ERROR))
    return score


def failure(reason: str) -> Score:
    """The score of an image that has none."""
    return Score(None, None, None, None, f"{ERROR}{reason}")
