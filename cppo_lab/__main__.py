"""`python -m cppo_lab`."""

from cppo_lab.cli import main

# A spawned worker imports this module too, and must not run the command again.
if __name__ == "__main__":
    main()
