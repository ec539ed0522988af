"""Native tests run on the GPU when SELFEXTEND_TEST_GPU_LAYERS says so, those of the package's own class too."""

from __future__ import annotations

import pytest
from support.driver import GPU_LAYERS


@pytest.fixture(autouse=True, scope="session")
def layers_on_the_gpu() -> None:
    """Llama's own default is none."""
    if GPU_LAYERS:
        from llama_cpp import Llama

        Llama.__init__.__kwdefaults__["n_gpu_layers"] = GPU_LAYERS
