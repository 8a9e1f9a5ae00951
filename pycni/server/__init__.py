"""The resident server: the same plugins, without their start-up, for launchers that hand their calls to it."""
