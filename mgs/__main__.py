"""`python -m mgs COMMAND`; the commands are in mgs/cli/."""

from mgs.cli import main

if __name__ == "__main__":
    main()
