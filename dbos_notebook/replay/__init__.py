"""Looking into the past of runs: what a step was called with, whether code fits, why a run failed, how two differ."""
