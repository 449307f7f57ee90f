"""The server's own messages, as its OpenAPI page tells them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from mgs.dimensions import MOS_MAX, Dimension

FOUND = "the prompt that the file itself holds is read, if there is one"


class Options(BaseModel):
    """What may be asked besides images."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: Annotated[str | None, Field(description="a name of /info; by default the first")] = None
    dimensions: Annotated[list[Dimension] | None, Field(description="those to tell; by default all")] = None
    explain: Annotated[bool, Field(description="also tell what the scores are made of")] = False


class ScoreOptions(Options):
    """What `POST /score` may ask."""

    prompts: Annotated[list[str | None] | None, Field(description=f"one for each image; without, {FOUND}")] = None


class RankOptions(Options):
    """What `POST /rank` may ask."""

    prompt: Annotated[str | None, Field(description=f"of all images; without, {FOUND}")] = None
    by: Annotated[Dimension | None, Field(description="by default correspondence, if the images have prompts")] = None


class PromptOptions(BaseModel):
    """`POST /prompt` asks nothing besides images."""

    model_config = ConfigDict(extra="forbid")


class Fragment(BaseModel):
    """A part of the prompt, as the image shows it."""

    text: str
    weight: float = Field(description="0-1; all of them sum to 1")
    score: float = Field(description="of the patches that show it best")
    patches: list[float] = Field(description="its cosine with each patch")
    counted: list[int] = Field(description="those patches, from 0")


class Map(BaseModel):
    """A number for each place of the image, as a small grey picture over the whole of it."""

    png: str = Field(description="base64 of an 8-bit grey PNG in the image's proportions, 64 pixels or less a side")
    low: float = Field(description="what grey level 0 stands for")
    high: float = Field(description="what grey level 255 stands for; levels between are spread evenly")


class Maps(BaseModel):
    """Readings at the resolution of the image tower's tokens; unlike the other numbers, they do not add up."""

    quality: Map = Field(description="what each place adds to the score of a view; 0 is between levels 127 and 128")
    authenticity: Map
    whole: Map | None = Field(description="each place's cosine with the whole prompt; null without a prompt")
    fragments: list[Map] = Field(description="each place's cosine with each fragment; of the first 64 fragments")


class Explanation(BaseModel):
    """What scores are made of."""

    size: tuple[int, int] = Field(description="height and width of the picture that patches were cut from")
    boxes: list[tuple[int, int, int]] = Field(description="each patch's top, left and side on it")
    joint: list[list[float]] | None = Field(description="probability by quality word (rows) and authenticity word")
    quality_words: list[str]
    authenticity_words: list[str]
    quality: float = Field(description="as in the scores; where these have none, since nobody trained it, all the same")
    authenticity: float
    shares: dict[Dimension, float] = Field(description="of quality, authenticity and correspondence in overall")
    patch_quality: list[float] = Field(description="the quality score if all patches were like this one")
    patch_authenticity: list[float]
    whole: float = Field(description="the whole prompt against the whole image")
    whole_share: float = Field(description="its share of correspondence, 0-1")
    correspondence: float = Field(description="whole_share * whole + (1 - whole_share) * the fragments, weighted")
    fragments: list[Fragment]
    maps: Maps | None = Field(description="null where the image tower shows no tokens")


class Entry(BaseModel):
    """One image's answer."""

    index: int = Field(description="the image's place in the request, from 0")
    name: str
    prompt: str | None
    prompt_read: str | None = Field(description="what the model read of it")
    scores: dict[Dimension, float] = Field(description=f"on MOS's 0-{MOS_MAX:g}, higher is better, not clamped")
    levels: dict[Dimension, str] = Field(description="the word for the level nearest to each score")
    labels: dict[str, str] = Field(description="what the method tells besides scores")
    status: str = Field(description="ok, perhaps with remarks after a colon; or error: and the reason")
    explanation: Explanation | None = None


class ScoreAnswer(BaseModel):
    """The answer of `POST /score`, in the images' order."""

    checkpoint: str
    results: list[Entry]


class Ranked(Entry):
    """One image's answer, with its rank from 1; none for an image without a score."""

    rank: int | None


class RankAnswer(BaseModel):
    """The answer of `POST /rank`, best first."""

    checkpoint: str
    by: Dimension
    results: list[Ranked]


class FoundPrompt(BaseModel):
    """The prompt that a file holds."""

    index: int
    name: str
    prompt: str | None
    prompt_read: str | None
    place: str | None = Field(description="where it was found")


class PromptAnswer(BaseModel):
    """The answer of `POST /prompt`."""

    results: list[FoundPrompt]


class Checkpoint(BaseModel):
    """What one model gives."""

    name: str = Field(description="what `checkpoint` of a request may be")
    scored_by: str
    method: str
    dimensions: list[Dimension]
    range: tuple[float, float] = Field(description="of the MOS that scores estimate; they are not clamped to it")
    levels: dict[Dimension, list[str]] = Field(description="the words for five levels, worst first")
    needs_prompt: list[Dimension] = Field(description="without a prompt there is no score of these")
    explains: bool
    prompt_style: str
    fingerprint: str = Field(description="a hash of its weights; of a checkpoint, its file's SHA-256")
    device: str
    precision: str


class RewardInfo(BaseModel):
    """How rewards are mixed."""

    weights: dict[Dimension, float]
    range: tuple[float, float]


class LimitsInfo(BaseModel):
    """What a request may have."""

    images: int
    bytes: int
    pixels: int = Field(description="of an image")
    seconds: float
    queue: int = Field(description="images of all requests")


class Info(BaseModel):
    """What is served."""

    version: str
    checkpoints: list[Checkpoint] = Field(description="the first is the default")
    reward: RewardInfo
    limits: LimitsInfo


class Problem(BaseModel):
    """Why a request is not served."""

    detail: str


def body_of(options: type[BaseModel]) -> dict[str, Any]:
    """A request's body for OpenAPI: a form, or JSON, with images and these options."""
    schema = options.model_json_schema()
    files = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    texts = {"type": "array", "minItems": 1, "items": {"type": "string", "description": "base64, or a data URL"}}

    def with_images(images: dict[str, Any]) -> dict[str, Any]:
        return {**schema, "properties": {"images": images, **schema["properties"]}, "required": ["images"]}

    kinds = {"multipart/form-data": with_images(files), "application/json": with_images(texts)}
    return {"requestBody": {"required": True, "content": {kind: {"schema": one} for kind, one in kinds.items()}}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON body for OpenAPI."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers for OpenAPI that refuse a request."""
    return {status: {"model": Problem} for status in statuses}
