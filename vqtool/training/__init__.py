"""The one loop that trains every stage, and what it stands on: runtime, runs, checkpoints, evaluation."""
