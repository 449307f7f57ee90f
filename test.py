"""Test what train.py left: `python test.py [CONFIG.yaml ...] [key=value ...]`. The recipe is mgs/recipes/test.py."""

import sys

from mgs.errors import exit_on_user_error


def main(words: list[str]) -> None:
    """Run the recipe; it is imported here, where Ctrl-C is answered already."""
    from mgs.recipes.test import main as test

    test(words)


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
