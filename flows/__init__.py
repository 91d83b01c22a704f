"""What runs: one flow a file."""

import tasks  # noqa: F401  (sets the environment before Prefect reads it)
