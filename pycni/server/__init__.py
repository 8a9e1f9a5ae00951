"""The resident server: executes the calls that launchers send, without starting a Python process for each."""
