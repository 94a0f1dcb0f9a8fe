"""What every test stands on: an environment without our settings, and a quiet log."""

import logging
import os

import pytest
import structlog

# Before any Hugging Face library is imported: a test that reached for the hub would be a test of the network.
os.environ["HF_HUB_OFFLINE"] = "1"
for name in [name for name in os.environ if name.startswith("NLP_WORKER_")]:
    del os.environ[name]


@pytest.fixture(autouse=True)
def quiet_log() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
