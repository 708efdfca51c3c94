"""Small models and batches for the tests of the model, and a server for those of downloads."""

import functools
import http.server
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from transformer.config import ModelConfig
from transformer.model import Transformer
from transformer.vocabulary import BOS, PAD


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random numbers, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def make_config() -> Callable[..., ModelConfig]:
    def make(**changes: Any) -> ModelConfig:
        values: dict[str, Any] = {
            "source_size": 13,
            "target_size": 11,
            "d_model": 16,
            "num_heads": 2,
            "d_ff": 24,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "dropout": 0.0,
            "max_length": 32,
        }
        return ModelConfig(**{**values, **changes})

    return make


@pytest.fixture
def make_model(make_config: Callable[..., ModelConfig]) -> Callable[..., Transformer]:
    """A model in evaluation mode whose every parameter, biases and norms too, is random."""

    def make(**changes: Any) -> Transformer:
        model = Transformer(make_config(**changes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        return model

    return make


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Sources (3, 6) and what the decoder reads (3, 5), with padding at the end."""
    source = torch.randint(4, 13, (3, 6))
    target = torch.randint(4, 11, (3, 5))
    target[:, 0] = BOS
    source[1, 4:] = PAD
    source[2, 2:] = PAD
    target[1, 3:] = PAD
    return source, target


@pytest.fixture
def server(tmp_path: Path):
    (tmp_path / "served").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
