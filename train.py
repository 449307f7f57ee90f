"""Train MGS: `python train.py [CONFIG.yaml ...] [key=value ...]`. The recipe is mgs/recipes/train.py."""

import os
import sys
from pathlib import Path

from mgs.errors import exit_on_user_error
from mgs.running.words import read_runner

THEN_TEST = "--then-test"  # of start_training.sh: continue as test.py with the same words


def main(words: list[str]) -> None:
    """Run the recipe; it is imported here, where Ctrl-C is answered already."""
    from mgs.recipes.train_by_tasks import main as train

    train(words)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != THEN_TEST]
    exit_on_user_error(main, words)
    if THEN_TEST in sys.argv:
        sys.stdout.flush()
        rest = read_runner(words).rest  # the runner's options are of training alone
        os.execv(sys.executable, [sys.executable, str(Path(__file__).with_name("test.py")), *rest])
