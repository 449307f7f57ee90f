"""`python -m mgs COMMAND`: what one does beside training and testing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm

from mgs.config import Config, DataConfig
from mgs.data.datasets import DATASETS, facts_of
from mgs.data.image_cache import KEPT_ON_DISK
from mgs.data.splits import PROTOCOLS, fold_folders
from mgs.files import folder_bytes
from mgs.launch import load_config
from mgs.runtime import UserError, exit_on_user_error

if TYPE_CHECKING:
    from mgs.scoring.scorer import Scorer

CHECKPOINT_HELP = "a checkpoint file, its fold folder or its run folder; default: the newest under runs/"
DEFAULT_CLIP = "ViT-B/16"
CLIP_HELP = f"for --zero-shot: an OpenAI name, a local file, or demo; default: {DEFAULT_CLIP}"
STYLE_HELP = "keywords, hybrid or sentence; default: the checkpoint's, else sentence"
MAY_BE_SET = ("device", "precision")

app = typer.Typer(
    help="Score AI-generated images on quality, authenticity and text-image correspondence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def score(
    images: Annotated[list[str] | None, typer.Argument(help="files, folders and patterns")] = None,
    prompt: Annotated[str | None, typer.Option(help="of all images")] = None,
    table: Annotated[str | None, typer.Option(help="CSV or .xlsx with columns image and prompt; - for stdin")] = None,
    folder: Annotated[Path | None, typer.Option("--images", help="where the table's image paths begin")] = None,
    out: Annotated[Path | None, typer.Option(help="write .csv, .jsonl or .parquet")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted --out")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help=CHECKPOINT_HELP)] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="a bare CLIP in place of a checkpoint")] = False,
    clip: Annotated[str | None, typer.Option(help=CLIP_HELP)] = None,
    prompt_style: Annotated[str | None, typer.Option(help=STYLE_HELP)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="images at once")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="device=... or precision=...")] = None,
) -> None:
    """Score images; exit code 1 if any could not be scored."""
    from mgs.scoring.jobs import as_row, collect_images, read_items, run_job, show_score, write_csv

    if bool(images) == bool(table):
        raise UserError("score: name images, or a table of them with --table; one of the two")
    if folder and not table:
        raise UserError("--images: says where a table's image paths begin; leave it out, or name a --table")
    if resume and not out:
        raise UserError("--resume: continues an --out; name it")
    items = read_items(table, folder, prompt) if table else collect_images(images or [], prompt)
    scorer = open_scorer(checkpoint, settings or [], zero_shot=zero_shot, clip=clip)
    if out:
        failed = run_job(items, scorer, out, resume=resume, batch_size=batch_size, style=prompt_style)
        print(f"{out}: {len(items) - failed} of {len(items)} images scored by {scorer.name}")
    else:
        pairs = [(item.path, item.prompt) for item in items]
        stream = scorer.score_stream(pairs, batch_size=batch_size, style=prompt_style)
        scores = list(tqdm(stream, desc="scoring", unit="image", total=len(items), delay=2, leave=False))
        failed = sum(one.failed for one in scores)
        if len(items) == 1:
            print(show_score(items[0], scores[0], scorer))
        else:
            write_csv(map(as_row, items, scores), sys.stdout)
            print(f"scored by {scorer.name}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="the image")],
    prompt: Annotated[str | None, typer.Option(help="its prompt")] = None,
    out: Annotated[Path, typer.Option(help="write .png, .pdf, .svg or .html")] = Path("why.png"),
    checkpoint: Annotated[Path | None, typer.Option(help=CHECKPOINT_HELP)] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="a bare CLIP in place of a checkpoint")] = False,
    clip: Annotated[str | None, typer.Option(help=CLIP_HELP)] = None,
    prompt_style: Annotated[str | None, typer.Option(help=STYLE_HELP)] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="device=... or precision=...")] = None,
) -> None:
    """Show why an image gets its scores: levels, patches, and the prompt's fragments over the image."""
    from mgs.scoring.explain import save_explanation
    from mgs.scoring.jobs import Item, show_score

    scorer = open_scorer(checkpoint, settings or [], zero_shot=zero_shot, clip=clip)
    explanation = scorer.explain(image, prompt, style=prompt_style)
    save_explanation(explanation, out)
    print(show_score(Item(str(image), image, prompt), explanation.score, scorer))
    print(f"{'explained in':<16}{out}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="where to write")],
    images: Annotated[list[Path] | None, typer.Argument(help="images to compare both ways on")] = None,
    prompt: Annotated[str, typer.Option(help="of those images")] = "a photo",
    checkpoint: Annotated[Path | None, typer.Option(help=CHECKPOINT_HELP)] = None,
) -> None:
    """Export a checkpoint to ONNX, to score with onnxruntime alone."""
    from mgs.scoring.export import check_parity, export

    scorer = open_scorer(checkpoint, ["device=cpu", "precision=fp32"])
    export(scorer, folder)
    print(f"{folder}: exported {scorer.name}")
    if images:
        worst = check_parity(scorer, folder, [(path, prompt) for path in images])
        print(f"scores of {len(images)} images: off by {worst:.2g} at most")
    print(f"try it without torch: python -m mgs.scoring.onnx_scorer {folder} IMAGE --prompt TEXT")


@app.command()
def import_original(
    file: Annotated[Path, typer.Argument(help="a .pt checkpoint of the original project")],
    folder: Annotated[Path, typer.Argument(help="where to write best.safetensors")],
    dataset: Annotated[str, typer.Option(help="what it was trained on: AGIQA-1K, AGIQA-3K or AIGCIQA2023")],
) -> None:
    """Make a checkpoint of the original project into one of ours."""
    from mgs.training.foreign import import_original as convert

    left_out = convert(file, folder, dataset=dataset)
    print(f"{folder}: imported; score with --checkpoint {folder}")
    if left_out:
        print(f"not used: {', '.join(left_out)}")


@app.command()
def doctor() -> None:
    """Say what is installed and found, and test the scoring of a known drawing; exit code 1 if something is wrong."""
    from mgs.scoring.doctor import BAD, examine

    wrong = 0
    for verdict in examine(Path("runs")):
        print(verdict, flush=True)
        wrong += verdict.kind == BAD
    print("all well" if not wrong else f"{wrong} problem{'s' * (wrong != 1)}; each line says what to do or what failed")
    if wrong:
        raise typer.Exit(1)


def open_scorer(
    checkpoint: Path | None, settings: list[str], *, zero_shot: bool = False, clip: str | None = None
) -> Scorer:
    """The scorer that the options name: a bare CLIP, a checkpoint, or the newest one under runs/."""
    from mgs.scoring.scorer import Scorer
    from mgs.training.checkpoint import newest_checkpoint

    if clip and not zero_shot:
        raise UserError("--clip: is for --zero-shot; leave it out, or add that")
    if checkpoint and zero_shot:
        raise UserError("--zero-shot: goes without a checkpoint; leave out one of --zero-shot and --checkpoint")
    for word in settings:
        if word.partition("=")[0] not in MAY_BE_SET:
            remedy = "all else comes from the checkpoint"
            raise UserError(f"--set {word}: only {' and '.join(MAY_BE_SET)} can be set here; {remedy}")
    machine = load_config(None, ["name=score", *settings])
    if zero_shot:
        return Scorer.zero_shot(clip or DEFAULT_CLIP, device=machine.device, precision=machine.precision)
    path = checkpoint or newest_checkpoint(Path(machine.runs))
    return Scorer.load(path, device=machine.device, precision=machine.precision)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="AGIQA-1K, AGIQA-3K or AIGCIQA2023")],
    root: Annotated[Path | None, typer.Option(help="where the download lies; default data/DATASET")] = None,
    protocol: Annotated[str, typer.Option(help="prompt-disjoint or random-image")] = "prompt-disjoint",
    seed: Annotated[int, typer.Option(min=0, help="decides the folds")] = 42,
) -> None:
    """Turn a dataset's official download into one table and ten folds."""
    from mgs.data.prepare import prepare as prepare_dataset

    folder = prepare_dataset(dataset, root or Path(facts_of(dataset).root), protocol=protocol, seed=seed)
    where = f" data.root={root}" if root else ""
    print(f"ten folds: {folder}\ntrain on them with: data.protocol={protocol}{where}")


@app.command()
def audit(
    place: Annotated[Path, typer.Argument(help="a dataset's folder, such as data/AGIQA-3K, or a config")],
    words: Annotated[list[str] | None, typer.Argument(help="key=value, as for training")] = None,
) -> None:
    """Look for leaks, repeated folds, conflicting MOS and damaged images; exit code 1 if there are any."""
    from mgs.data.audit import audit_dataset

    findings = []
    for config in find_audited(place, words or []):
        protocol, found = audit_dataset(data := config.data, config.folds)
        print(f"{data.splits or data.table or data.root}: {data.dataset}, protocol {protocol}", *found, sep="\n")
        findings += found
    if any(finding.kind != "note" for finding in findings):
        raise typer.Exit(1)
    print("clean: no leak, no flaw")


@app.command()
def demo_data(
    root: Annotated[Path, typer.Argument(help="folder to draw into")] = Path("data/demo"),
    seed: Annotated[int, typer.Option(min=0, help="decides the drawings")] = 7,
) -> None:
    """Draw the demo's pictures, prompts and MOS."""
    from mgs.data.demo import write_demo

    write_demo(root, seed=seed)
    print(f"drawn: {root}")


@app.command()
def clean(
    folder: Annotated[Path, typer.Argument(help="what data.cache_folder says")] = Path(DataConfig.cache_folder),
) -> None:
    """Remove the decoded images and activations that training keeps on disk; they are made again when needed."""
    freed = 0
    for kept in (folder / name for name in KEPT_ON_DISK):
        freed += folder_bytes(kept)
        shutil.rmtree(kept, ignore_errors=True)
    print(f"{folder}: {freed / 1e9:.2f} GB removed")


def find_audited(place: Path, words: list[str]) -> list[Config]:
    """The config named, or one for every protocol that the folder has folds for."""
    if place.suffix in (".yaml", ".yml"):
        return [load_config(place, words)]
    if not place.is_dir():
        raise UserError(f"{place}: no such folder; name a dataset's folder, or a config that names it")
    dataset = place.name if place.name in DATASETS else "custom"
    own = ["name=audit", f"data.root={place}", f"data.dataset={dataset}", *words]
    there = [protocol for protocol in PROTOCOLS if fold_folders(place / "splits" / protocol)]
    if not there or any(word.startswith(("data.splits=", "data.protocol=", "data.table=")) for word in words):
        return [load_config(None, own)]
    return [load_config(None, [*own, f"data.protocol={protocol}"]) for protocol in there]


def main() -> None:
    """The command `mgs`."""
    exit_on_user_error(app)


if __name__ == "__main__":
    main()
