"""The plugin tuning."""
