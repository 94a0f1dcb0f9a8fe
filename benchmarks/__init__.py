"""What is measured, each by `python -m benchmarks.NAME`: a table, and its figures and plot in benchmarks/results/."""

import sys
from pathlib import Path

# Brokers and checkpoints are those of the tests, which are no package.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
