"""`python -m signalwarden.cli`."""

from signalwarden.cli import main

main()
