"""`python -m pycni` is the command pycni."""

from pycni.cli import main

main()
