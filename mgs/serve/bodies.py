"""A request's body: multipart or JSON, and the images in it with their prompts."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mgs.images.metadata import as_text
from mgs.serve.limits import LONGEST_PROMPT, Limits, Refused
from mgs.sources.item import Item

Options = TypeVar("Options", bound=BaseModel)
PARTS = 500  # brackets and commas in JSON for each image: each makes a value, which takes memory, and time to check
ADDRESS = re.compile(r"\s{0,20}[a-z][a-z0-9+.-]{0,20}://", re.IGNORECASE)
SPACES = b" \t\r\n"
DATA_URL = re.compile(r"\A\s*data:[^,]{0,200};base64,", re.IGNORECASE)
SWITCH: dict[Any, bool] = {"true": True, "false": False}
LISTS = ("images", "prompts", "dimensions")  # fields of a form that may be repeated
MOST_TEXT = 1 << 16  # bytes of a text in a form
OTHERS = 8  # fields of a form, besides a prompt for each image


@dataclass(frozen=True)
class Upload:
    """A file of a form."""

    name: str
    data: bytes


class InMemoryParser(MultiPartParser):
    """Starlette's parser, without files on disk: a body is no larger than what it may keep in memory."""

    spool_max_size = 1 << 40
    ended = False

    def on_end(self) -> None:
        """The mark of the form's end is here; what is before it is lost without it."""
        self.ended = True


async def read_content(request: Request, limits: Limits) -> dict[str, Any]:
    """A body's fields: of JSON as they are; of a form, texts, and for `images` a list of `Upload`. Raises `Refused`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await read_form(request, limits)
    if kind == "application/json":
        return read_object(await request.body(), limits)
    raise Refused(415, f"content-type {kind or 'missing'}: send multipart/form-data, or application/json")


async def read_form(request: Request, limits: Limits) -> dict[str, Any]:
    """A form's fields. Raises `Refused`."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield await request.body()

    most = {"max_files": limits.images, "max_fields": limits.images + OTHERS, "max_part_size": MOST_TEXT}
    try:
        parser = InMemoryParser(request.headers, stream(), **most)
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many" in error.message:
            raise Refused(413, too_many(limits)) from None
        raise Refused(400, f"the form: cannot be read ({error.message})") from None
    if not parser.ended:
        raise Refused(400, "the form: its end is missing; send all of it")
    content: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) != (name == "images"):
            raise Refused(422, f"{as_text(name)}: send images as files, and all else as text")
        field = Upload(as_text(value.filename), await value.read()) if isinstance(value, UploadFile) else value
        if name in LISTS:
            content.setdefault(name, []).append(field)
        elif name in content:
            raise Refused(422, f"{as_text(name)}: given more than once")
        else:
            content[name] = SWITCH.get(field, field) if name == "explain" else field
    return content


def read_object(body: bytes, limits: Limits) -> dict[str, Any]:
    """The object of a JSON body. Raises `Refused`."""
    most = PARTS * max(limits.images, OTHERS)
    if sum(map(body.count, (b"[", b"{", b","))) > most:
        raise Refused(413, f"the body: more than {most:,} brackets and commas; send fewer images at once")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise Refused(422, "the body: JSON, but not an object; see /docs")
    return content


def check(model: type[Options], content: dict[str, Any]) -> Options:
    """A body's fields as the model has them. Raises `Refused` with the first that does not fit."""
    try:
        return model.model_validate(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise Refused(422, f"{as_text(place)}: {first['msg']}; see /docs") from None


def take_images(content: dict[str, Any]) -> list[str | Upload]:
    """The images of our own addresses' bodies; the other fields stay. Raises `Refused`."""
    images = content.pop("images", None)
    if not isinstance(images, list) or not all(isinstance(image, (str, Upload)) for image in images):
        raise Refused(422, "images: missing, or no list of base64; give a list of one or more")
    return images


def as_items(images: Any, prompts: Sequence[str | None] | None, limits: Limits) -> list[Item]:
    """A request's images with their prompts; None where none is given. Raises `Refused` for lists that are none."""
    if not isinstance(images, list) or not images:
        raise Refused(422, "images: missing; give a list of one or more")
    if len(images) > limits.images:
        raise Refused(413, too_many(limits))
    if prompts is not None and len(prompts) != len(images):
        raise Refused(422, f"prompts: {len(prompts)} for {len(images)} images; give one for each, or none")
    given = [None] * len(images) if prompts is None else prompts
    return [as_item(image, prompt, i) for i, (image, prompt) in enumerate(zip(images, given, strict=True))]


def as_item(image: Any, prompt: str | None, number: int) -> Item:
    """An image of a body: an `Upload`, base64, a data URL, or bytes; what is none of them is an item with a problem."""
    name, data, problem = f"image {number}", b"", ""
    if isinstance(image, Upload):
        name, data = image.name or name, image.data
    elif isinstance(image, bytes):
        data = image
    elif not isinstance(image, str):
        problem = f"a {type(image).__name__}; send the file's content as base64"
    elif ADDRESS.match(image):
        problem = "an address; this server opens none: send the file's content as base64"
    else:
        try:
            coded = DATA_URL.sub("", image, count=1).encode("ascii").translate(None, SPACES)
            data = base64.b64decode(coded, validate=True)
        except ValueError as error:
            problem = f"not base64 ({error})"
    if prompt is not None and len(prompt) > LONGEST_PROMPT:
        return Item(name, problem=f"a prompt of {len(prompt):,} characters; give {LONGEST_PROMPT:,} at most")
    return Item(name, prompt=None if prompt is None else as_text(prompt), data=data, problem=problem)


def too_many(limits: Limits) -> str:
    """What is said of a request with more images than one may have."""
    return f"images: more than {limits.images}; send them in several requests"
