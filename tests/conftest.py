"""Fixtures that several test modules share."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.tiny_models import TinyModel

# The matrices of the reference are small: more BLAS threads only wait for each other (three times slower on two cores).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Threads of the library that wait for each other sleep instead of spinning: beside other work spinning takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# How long an example takes is the machine's matter.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
# What a developer tuned on this machine must not change what the tests see.
os.environ["SELFEXTEND_PROFILES"] = "no-profiles-in-tests"
os.environ["SELFEXTEND_CONFIG"] = os.devnull


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """tiny_model(kind) -> path of a tiny random-weight model, written once a session."""
    from support.tiny_models import make_tiny_model

    folder = tmp_path_factory.mktemp("tiny-models")
    return functools.cache(lambda kind: make_tiny_model(kind, folder))


@pytest.fixture(scope="session")
def fixture_model() -> Path:
    """A trained model of 4.7 million parameters with a window of 512 tokens, which finds pass keys and stated facts."""
    from support.fixture_model import FIXTURE_MODEL

    return FIXTURE_MODEL
