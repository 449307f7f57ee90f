"""What a server takes from one client and from all of them, and how it refuses more."""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass

from mgs.errors import UserError
from mgs.images.fit import MAX_PIXELS

LONGEST_PROMPT = 4096  # characters; CLIP reads 77 tokens
LONGEST_WORD = 500  # characters; the time that a tokenizer takes grows with the square of a word
MOST_ESCAPES = 3  # of a character, such as &amp;amp;, each of which costs a reading of the whole prompt
WORD = re.compile(rf"\w{{{LONGEST_WORD + 1}}}")


@dataclass(frozen=True)
class Limits:
    """Bounds of a request, and of all requests together. Raises `UserError` for bounds that nothing fits in."""

    images: int = 64  # of a request
    bytes: int = 64 << 20  # of a request's body
    pixels: int = 1 << 24  # of an image, as the model sees it
    seconds: float = 60.0  # for a body to arrive, and again for its images to be scored
    queue: int = 256  # images of all requests that are not answered yet

    def __post_init__(self) -> None:
        least = min(self.images, self.bytes, self.pixels, self.seconds, self.queue)
        if not (least > 0 and math.isfinite(self.seconds)):
            raise UserError(f"{self}: all of them need to be more than 0, and finite")
        if self.images > self.queue:
            raise UserError(f"--max-images {self.images}: more than --queue {self.queue} holds; raise --queue")
        if self.pixels > MAX_PIXELS:
            raise UserError(f"--max-pixels {self.pixels}: no image above {MAX_PIXELS:,} is read anywhere")

    @property
    def bodies(self) -> int:
        """Bytes of bodies in memory, of all requests that are not answered yet."""
        return 8 * self.bytes

    @property
    def decoded(self) -> int:
        """Pixels of all images that are decoded and not scored yet."""
        return 4 * self.pixels


def slowness(prompt: str) -> str:
    """Why a prompt would take long to read, and what to do; "" where it does not."""
    if len(prompt) > LONGEST_PROMPT or WORD.search(prompt):
        return f"a prompt of more than {LONGEST_PROMPT:,} letters, or {LONGEST_WORD} in a word; shorten it"
    for _ in range(MOST_ESCAPES):
        prompt = html.unescape(prompt)
    return "" if html.unescape(prompt) == prompt else "a prompt escaped again and again (&amp;amp;); send it as text"


class Refused(UserError):
    """A request that is not served: an HTTP status, and one line of what is wrong, where, and the remedy."""

    def __init__(self, status: int, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after = status, str(self), retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer, besides the usual ones."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
