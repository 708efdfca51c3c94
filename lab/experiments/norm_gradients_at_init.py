"""Before the first step: how great the gradients are in a stack of L layers, for each place of the norm.

The setting of the theory is one stack of layers with one head, attention that is uniform because W_Q = W_K = 0, no
output matrix (W_O = 1), feed-forward networks as wide as the stream (d x d), every matrix drawn from a normal
distribution of Xavier's variance, and the loss of one token. Beside it stands what this project trains: encoder and
decoder with everything they have, on a batch of digits to write backwards.

Legend: B sequences, T tokens, D model width, V vocabulary, L layers.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.experiments.events import Concluded, Event, Label, Measured, Progress, Verdict
from lab.experiments.experiment import Experiment, Quantity, require_integers, seeds_of
from lab.experiments.statistics import Interval, fitted_exponent, mean_interval
from transformer.config import ModelConfig, require_integer
from transformer.data.batches import Batch, bucketed_batches
from transformer.layers import DecoderLayer, EncoderLayer, deepnorm_constants
from transformer.loss import label_smoothed_loss
from transformer.model import Transformer
from transformer.recipe import Recipe, prepare
from transformer.trace import Trace

NORMS = ("post", "pre", "deepnorm")
LAWS = {"post": 0.0, "pre": -0.5}
TOLERANCE = 0.15
VOCABULARY = 64
LENGTH = 16
# Before it come padding, unknown, beginning and end.
FIRST_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure.

    Attributes:
        depths: Numbers of layers L of the stack.
        full_depths: Numbers of layers of the encoder, and of the decoder, of the full model.
        d_model: Width of the stream.
        sequences: Sequences whose gradients are averaged, for each seed.
        seeds: How many initialisations of each.
    """

    depths: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    full_depths: tuple[int, ...] = (2, 4, 8, 16)
    d_model: int = 64
    sequences: int = 8
    seeds: int = 5

    def __post_init__(self) -> None:
        for name in ("depths", "full_depths"):
            require_integers(name, getattr(self, name), low=1, high=500)
            if len(getattr(self, name)) < 2:
                raise ValueError(
                    f"{name} is {list(getattr(self, name))!r}; an exponent needs at least two depths."
                )
        require_integer("d_model", self.d_model, low=8, high=1024)
        if self.d_model % 4:
            raise ValueError(
                f"d_model is {self.d_model}; it must be a multiple of 4, for the full model has 4 heads."
            )
        require_integer("sequences", self.sequences, low=1, high=1000)
        require_integer("seeds", self.seeds, low=2, high=100)


def run(options: Options) -> Iterator[Event]:
    """Measure the gradient of the last feed-forward weight in untrained models of growing depth.

    Claim: At initialisation the gradient of the last feed-forward weight does not depend on the number of layers L under
    post-norm, and falls like 1/sqrt(L) under pre-norm.

    Source: Xiong et al. 2020, On Layer Normalization in the Transformer Architecture, theorem 1.

    Verdict: A power of L is fitted to each seed's gradients in the setting of the theory (least squares in logarithms);
    the 95 % confidence interval of its exponent over the seeds (Student's t) is compared with the law, 0 for post-norm
    and -1/2 for pre-norm. The claim holds if both intervals lie within 0.15 of the law, does not hold if one of them
    lies wholly outside, and is not decided otherwise. The full encoder and decoder have no part in the verdict.
    """
    seeds = seeds_of(options.seeds)
    total = len(seeds) * len(NORMS) * (len(options.depths) + len(options.full_depths))
    done = 0
    yield Progress(done=0, total=total)
    gradients: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for setting, depths in (("theory", options.depths), ("full", options.full_depths)):
        for norm in NORMS:
            for layers in depths:
                for seed in seeds:
                    if setting == "theory":
                        found = theory_gradients(norm, layers, seed, options)
                    else:
                        found = full_gradients(norm, layers, seed, options)
                    labels: dict[str, Label] = {"setting": setting, "norm": norm, "seed": seed}
                    gradients[setting, norm, seed].append(found.gradients[-1])
                    yield Measured(quantity="gradient", labels=labels, x=layers, y=found.gradients[-1])
                    labels = {**labels, "layers": layers}
                    for layer, (gradient, stream) in enumerate(
                        zip(found.gradients, found.streams, strict=True), 1
                    ):
                        yield Measured(quantity="layer_gradient", labels=labels, x=layer, y=gradient)
                        yield Measured(quantity="stream", labels=labels, x=layer, y=stream)
                    done += 1
                    yield Progress(done=done, total=total)
        if setting == "theory":
            yield from theory_curves(gradients, options)
    exponents = {
        (setting, norm): mean_interval(
            [fitted_exponent(depths, gradients[setting, norm, seed]) for seed in seeds]
        )
        for setting, depths in (("theory", options.depths), ("full", options.full_depths))
        for norm in NORMS
    }
    numbers: dict[str, float] = {}
    for (setting, norm), interval in exponents.items():
        name = f"{norm}_exponent" if setting == "theory" else f"full_{norm}_exponent"
        numbers |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    yield Concluded(
        verdict=verdict_of({norm: exponents["theory", norm] for norm in LAWS}), numbers=numbers, seeds=seeds
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was read in one model, layer by layer.

    Attributes:
        gradients: Norm of the gradient of the second feed-forward matrix of each layer.
        streams: Mean over the tokens of ||x||^2 / D after each layer.
    """

    gradients: list[float]
    streams: list[float]


def theory_model(norm: str, layers: int, d_model: int) -> Transformer:
    """A stack in the setting of the theory, drawn under torch's current seed."""
    model = Transformer(
        ModelConfig.from_dict(
            {
                "source_size": VOCABULARY,
                "target_size": VOCABULARY,
                "d_model": d_model,
                "num_heads": 1,
                "d_ff": d_model,
                "encoder_layers": layers,
                "decoder_layers": 0,
                "dropout": 0.0,
                "positions": "none",
                "norm": norm,
                "tied_embeddings": "none",
                "max_length": LENGTH,
            }
        )
    )
    for layer in (cast(EncoderLayer, layer) for layer in model.encoder):
        attention, feed_forward = layer.self_attention.attention, layer.feed_forward
        nn.init.zeros_(attention.query_projection.weight)
        nn.init.zeros_(attention.key_projection.weight)
        nn.init.eye_(attention.output_projection.weight)
        beta = deepnorm_constants(layers, 0).encoder_beta if norm == "deepnorm" else 1.0
        # Twice, for W_V and for the W_O that it stands for too.
        nn.init.xavier_normal_(attention.value_projection.weight, gain=beta**2)
        nn.init.xavier_normal_(feed_forward.widen.weight, gain=beta)
        nn.init.xavier_normal_(feed_forward.narrow.weight, gain=beta)
    nn.init.normal_(model.output_projection.weight, std=d_model**-0.5)
    return model


def theory_gradients(norm: str, layers: int, seed: int, options: Options) -> Found:
    """Gradients of the loss of one token, averaged over sequences of random tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = theory_model(norm, layers, options.d_model)
        ids = torch.randint(FIRST_TOKEN, VOCABULARY, (options.sequences, LENGTH))
        answers = torch.randint(FIRST_TOKEN, VOCABULARY, (options.sequences,))
    trace = Trace(keep="*.feed_forward.residual_after")
    logits = model.output_projection(model.encode(ids, trace)[:, 0])  # (B, V)
    losses = F.cross_entropy(logits, answers, reduction="none")
    weights = narrow_weights(model)
    norms = [
        [gradient.norm().item() for gradient in torch.autograd.grad(loss, weights, retain_graph=True)]
        for loss in losses
    ]
    streams = [stream_size(trace[f"encoder.{index}.feed_forward.residual_after"]) for index in range(layers)]
    return Found(gradients=np.mean(norms, axis=0).tolist(), streams=streams)


def full_gradients(norm: str, layers: int, seed: int, options: Options) -> Found:
    """Gradients of the mean loss of a batch in the encoder and decoder that this project trains."""
    model, batch = full_model(norm, layers, seed, options.d_model)
    trace = Trace(keep="*.feed_forward.residual_after")
    loss = label_smoothed_loss(model(batch.source, batch.target_in, trace), batch.target_out)
    gradients = torch.autograd.grad(loss, narrow_weights(model))
    return Found(
        gradients=[gradient.norm().item() for gradient in gradients],
        streams=[stream_size(trace[name]) for name in trace],
    )


def full_model(norm: str, layers: int, seed: int, d_model: int) -> tuple[Transformer, Batch]:
    """An untrained model of the reverse task, and the first batch of its training."""
    recipe = Recipe.from_dict(
        {
            "data": {"task": "reverse", "task_train": 100, "task_dev": 1},
            "source_vocabulary": {"level": "word"},
            "target_vocabulary": {"level": "word"},
            "model": {
                "d_model": d_model,
                "num_heads": 4,
                "d_ff": 4 * d_model,
                "encoder_layers": layers,
                "decoder_layers": layers,
                "dropout": 0.0,
                "norm": norm,
                "max_length": 32,
            },
            "training": {"steps": 1, "batch_tokens": 300, "seed": seed},
        }
    )
    trainer = prepare(recipe).trainer
    batch = next(iter(bucketed_batches(trainer.train_data, batch_tokens=300, seed=seed, epoch=0)))
    return trainer.model, batch


def narrow_weights(model: Transformer) -> list[Tensor]:
    """The second feed-forward matrix of each layer, encoder first: W^(2,l) in the paper."""
    layers = [cast(EncoderLayer | DecoderLayer, layer) for layer in (*model.encoder, *model.decoder)]
    return [layer.feed_forward.narrow.weight for layer in layers]


def stream_size(x: Tensor) -> float:
    """Mean over the tokens of ||x||^2 / D: (B, T, D) to one number."""
    return x.detach().square().mean().item()


def theory_curves(gradients: Mapping[tuple[str, str, int], list[float]], options: Options) -> Iterator[Event]:
    """The two laws, put where they fit the measured gradients best, and the paper's bounds of the stream (lemma 2)."""
    for norm, exponent in LAWS.items():
        rows = [gradients["theory", norm, seed] for seed in seeds_of(options.seeds)]
        constant = float(np.exp(np.mean(np.log(rows) - exponent * np.log(options.depths))))
        for layers in options.depths:
            yield Measured(
                quantity="gradient_law", labels={"norm": norm}, x=layers, y=constant * layers**exponent
            )
    for layer in range(1, options.depths[-1] + 1):
        for bound, factor in (("low", 0.5), ("high", 1.5)):
            yield Measured(
                quantity="stream_law", labels={"norm": "pre", "bound": bound}, x=layer, y=1 + factor * layer
            )


def verdict_of(exponents: Mapping[str, Interval]) -> Verdict:
    """What the rule says about the fitted exponents, by norm."""
    offs = [(interval.low - LAWS[norm], interval.high - LAWS[norm]) for norm, interval in exponents.items()]
    if all(low >= -TOLERANCE and high <= TOLERANCE for low, high in offs):
        return "holds"
    if any(high < -TOLERANCE or low > TOLERANCE for low, high in offs):
        return "does not hold"
    return "not decided"


EXPERIMENT = Experiment(
    name="norm-gradients-at-init",
    options=Options,
    run=run,
    quantities=(
        Quantity(
            name="gradient",
            x="layers L",
            y="gradient of the last feed-forward weight",
            log_x=True,
            log_y=True,
        ),
        Quantity(name="gradient_law", x="layers L", y="the law of the theory", log_x=True, log_y=True),
        Quantity(
            name="layer_gradient", x="layer", y="gradient of the layer's feed-forward weight", log_y=True
        ),
        Quantity(name="stream", x="layer", y="size of the residual stream, ||x||^2 / d", log_y=True),
        Quantity(name="stream_law", x="layer", y="bounds of the theory, ||x||^2 / d", log_y=True),
    ),
)
