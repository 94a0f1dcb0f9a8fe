"""One file for each task; base.py says what a task is."""
