"""The stages of RS-DPO (arXiv:2402.10038), one file each, over the rooms that they stand on: see README.md."""

import os

from tasks.config.environment import find_folders, pass_by_proxies

# No library that a stage loads may call home, or talk over the pipeline's own log. Nothing is pickled: Prefect would
# pickle the errors of failed runs. A busy machine may need a minute to start Prefect's temporary server. Set before any
# of them is imported.
for _name, _value in {
    "DO_NOT_TRACK": "1",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; infra/apply.py counts on it
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CONFIGURE_LOGGING": "0",  # it would close Prefect's log handlers under a lock that they need to close
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}.items():
    os.environ.setdefault(_name, _value)

find_folders()
pass_by_proxies()
