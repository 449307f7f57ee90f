"""What each dataset is, as rows of one table."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mgs.dimensions import Dimension
from mgs.errors import UserError

NEED_A_PROMPT = ("correspondence", "overall")
BEFORE_UNDERSCORE = r"([^/_]+)_[^/]*$"  # of a file's name, such as "glide" of glide_normal_108.jpg


@dataclass(frozen=True)
class Columns:
    """A table's columns, by what they hold. Names are in lower case here; a table may write them in any case."""

    image: tuple[str, ...]  # joined with "/"
    prompt: str  # "": the table has no prompts
    targets: dict[Dimension, str] = field(default_factory=dict)  # dimension -> column

    def all(self) -> list[str]:
        """Every column that is required."""
        return [*self.image, *filter(None, [self.prompt]), *self.targets.values()]


@dataclass(frozen=True)
class DatasetFacts:
    """One dataset's row of the table."""

    dimensions: tuple[Dimension, ...]  # empty: those that the user's table has
    prompt_style: str
    root: str = ""  # the default folder
    published: Columns | None = None  # in the split CSVs of the dataset's literature
    official: Columns | None = None  # in the official table of a dataset that nobody has published folds of
    headerless: tuple[str, ...] = ()  # that table's columns, in order, where it has no header; the last is MOS
    images: int | None = None  # rows of the official table
    image_folders: tuple[str, ...] = ("",)  # under the root, where images may lie
    numbered_folders: tuple[str, ...] = ()  # the same, named <position in the official table, from 0>.png
    official_table: str = ""  # pattern of the downloaded table's name, in lower case
    link: str = ""
    make_folds: str = "python -m mgs prepare {dataset} --protocol {protocol}"  # the command that makes folds
    own: bool = False  # the user's own data: a table anywhere, on any scale
    generator: str = r"^(.+?)/"  # finds the generator in an image's name; by default it is the first folder


DATASETS = {
    "AGIQA-1K": DatasetFacts(
        dimensions=("overall",),
        prompt_style="keywords",
        root="data/AGIQA-1K",
        published=Columns(("image",), "prompt", {"overall": "mos"}),
        images=1080,
        image_folders=("", "file", "images"),
        official_table="*mos_zscore.xlsx",
        link="https://github.com/lcysyzxdxc/AGIQA-1k-Database",
        generator=BEFORE_UNDERSCORE,
    ),
    "AGIQA-3K": DatasetFacts(
        dimensions=("quality", "correspondence"),
        prompt_style="hybrid",
        root="data/AGIQA-3K",
        published=Columns(("name",), "prompt", {"quality": "mos_quality", "correspondence": "mos_align"}),
        images=2982,
        image_folders=("", "images"),
        official_table="data.csv",
        link="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
        generator=BEFORE_UNDERSCORE,
    ),
    "AIGCIQA2023": DatasetFacts(
        dimensions=("quality", "authenticity", "correspondence"),
        prompt_style="sentence",
        root="data/AIGCIQA2023",
        published=Columns(
            ("model", "image_name"), "prompt", {"quality": "mosz1", "authenticity": "mosz2", "correspondence": "mosz3"}
        ),
        images=2400,
        image_folders=("", "Image", "images"),
        numbered_folders=("Image/allimg", "images/allimg", "allimg"),
        official_table="*pic-index.xlsx",
        link="https://github.com/wangjiarui153/AIGCIQA2023",
    ),
    "AIGIQA-20K": DatasetFacts(
        dimensions=("overall",),
        prompt_style="sentence",
        root="data/AIGIQA-20K",
        official=Columns(("name",), "prompt", {"overall": "mos"}),
        headerless=("name", "prompt", "mos"),
        images=14_000,  # of 20,000: its authors keep the MOS of the others
        image_folders=("", "train", "images"),
        official_table="info_train.csv",
        link="https://www.modelscope.cn/datasets/lcysyzxdxc/AIGCQA-30K-Image",
        generator=BEFORE_UNDERSCORE,
    ),
    "demo": DatasetFacts(
        ("quality", "authenticity", "correspondence"),
        "sentence",
        root="data/demo",
        make_folds="python -m mgs demo-data",
        generator=BEFORE_UNDERSCORE,
    ),
    "custom": DatasetFacts((), "sentence", own=True),
}


def facts_of(dataset: str) -> DatasetFacts:
    """The dataset's row; a name that is not there is a `UserError`."""
    if dataset not in DATASETS:
        raise UserError(f"data.dataset={dataset}: no such dataset; known are {', '.join(DATASETS)}")
    return DATASETS[dataset]


def find_generator(dataset: str, name: str) -> str:
    """The generator that drew the image, by the image's name; "" if that does not say."""
    found = re.search(facts_of(dataset).generator, name)
    return found[1] if found else ""
