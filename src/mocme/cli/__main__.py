"""`python -m mocme.cli`."""

from mocme.cli import main

main()
