"""``python -m nlp_worker``."""

from nlp_worker.cli import main

main(prog_name="nlp-worker")
