"""Images in tars and zips, as WebDataset, img2dataset and DiffusionDB pack them: `000.jpg`, `000.txt`, `000.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

from mgs.errors import UserError
from mgs.safe_text import printable
from mgs.sources.find_files import is_image
from mgs.sources.find_prompt import decode_text, read_json, read_text
from mgs.sources.item import Item, absolute, hash_of
from mgs.sources.members import TEXTS, Damaged, Member, key_of, kind_of, read_members
from mgs.sources.places import reason_of

READERS = dict(zip(TEXTS, (read_text, read_json), strict=True))
MOST_MEMBERS = 64  # of a sample in memory, before a part of it is taken for a whole one
Read = tuple[Member, bytes]  # a member with its content


@dataclass(frozen=True)
class ArchiveShard:
    """An archive."""

    file: str
    stamp: str  # of its content, when the source was found
    prompt: str | None = None  # the user's, for all images

    @property
    def count(self) -> None:
        """Not known before it is read."""
        return None

    @property
    def wants_prompts(self) -> bool:
        """Whether the user gives no prompt: an image may have no text beside it."""
        return self.prompt is None

    def fingerprint(self) -> str:
        """A hash of the file's name, size and time, and the user's prompt."""
        return hash_of(absolute(self.file), self.stamp, self.prompt)

    def items(self) -> Iterator[Item]:
        """The images in the archive's order, each with the prompt that its text or JSON has.

        Where the archive is damaged, a last item says so. What is odd about all of it is said on stderr. Raises
        `UserError` where it cannot be reached.
        """
        images = lonely = 0
        given: dict[str, str] = {}  # DiffusionDB's prompts, by the images' names in the archive
        for sample in self.samples():
            items = [sample] if isinstance(sample, Item) else list(self.items_of(sample, given))
            if not isinstance(sample, Item) and not items:
                given |= (found := read_parts(sample))
                lonely += not found
            images += len(items)
            yield from items
        odd = "no image in it" if not images else ""
        if lonely and images and self.prompt is None:
            odd = f"{lonely} texts without an image of their name beside them; a sample's files must follow one another"
        if odd:
            tqdm.write(printable(f"{self.file}: {odd}"), file=sys.stderr)

    def samples(self) -> Iterator[list[Read] | Item]:
        """Members that belong together; at damage an item that says so."""
        sample = list[Read]()
        try:
            for member in read_members(self.file):
                if sample and is_another(member.name, sample):
                    yield sample
                    sample = []
                sample.append((member, b"" if member.problem else member.read()))
        except OSError as error:
            raise UserError(f"{self.file}: {reason_of(error)}; --resume continues when it can be read") from None
        except Damaged as error:
            if self.prompt is not None or any(kind_of(member.name) in TEXTS for member, _ in sample):
                yield sample
            # else the sample's text may be lost
            yield Item(self.file, problem=f"damaged ({error}); images before the damage are scored")
            return
        if sample:
            yield sample

    def items_of(self, sample: list[Read], given: dict[str, str]) -> Iterator[Item]:
        """The images of a sample. A text is an image's if it has its name, or that up to the first dot."""
        texts = {member.name.lower(): data for member, data in sample if kind_of(member.name) in TEXTS}
        for member, data in sample:
            if is_image(member.name):
                found = find_text(member.name, texts) or given.get(member.name)
                prompt = found if self.prompt is None else self.prompt
                place = f"{self.file}/{member.name}"
                yield Item(place, "", prompt, None if member.problem else data, member.problem)


def find_text(name: str, texts: dict[str, bytes]) -> str | None:
    """An image's prompt among a sample's texts; None where there is none."""
    stems = (name.rpartition(".")[0], key_of(name))
    names = [(f"{stem}.{kind}".lower(), read) for stem in stems for kind, read in READERS.items()]
    found = (read(decode_text(texts[text])) for text, read in names if text in texts)
    return next(filter(None, found), None)


def is_another(name: str, sample: list[Read]) -> bool:
    """Whether a member begins another sample. One of many members ends where a name up to the last dot does."""
    last = sample[-1][0].name
    if key_of(name) != key_of(last) or any(name == member.name for member, _ in sample):
        return True
    return len(sample) >= MOST_MEMBERS and name.rpartition(".")[0] != last.rpartition(".")[0]


def read_parts(sample: list[Read]) -> dict[str, str]:
    """DiffusionDB's prompts by the images' names in the archive; they are of the folder that the JSON is in."""
    prompts: dict[str, str] = {}
    for member, data in sample:
        folder, slash, _ = member.name.rpartition("/")
        found = read_part(data) if kind_of(member.name) == "json" else {}
        prompts |= {f"{folder}{slash}{name}": prompt for name, prompt in found.items()}
    return prompts


def read_part(data: bytes) -> dict[str, str]:
    """DiffusionDB's prompts of a part, by the images' names; none where the JSON is another one."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    facts = content.items() if isinstance(content, dict) else ()
    return {name: one["p"] for name, one in facts if isinstance(one, dict) and isinstance(one.get("p"), str)}
