"""`python -m gateway` is the `posthouse` command."""

from gateway.cli import main

main()
