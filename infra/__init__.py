"""Where it runs: what a Prefect server needs, a whole stack on one machine, images and manifests for more."""

import tasks  # noqa: F401  (sets the environment before Prefect reads it)
