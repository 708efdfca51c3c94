"""Configuration of the model: one frozen dataclass, checked when it is made.

Defaults are the base model of *Attention Is All You Need* (Vaswani et al. 2017, Table 3).
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

AttentionKind = Literal["dot_product", "additive"]
ScaleKind = Literal["sqrt", "none", "linear"]
PositionKind = Literal["sinusoidal", "learned", "rotary", "alibi", "none"]
NormKind = Literal["post", "pre", "deepnorm", "none"]
TieKind = Literal["none", "target", "all"]

MAX_LAYERS = 1000
MAX_WIDTH = 65536


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and variant of an encoder–decoder Transformer.

    Attributes:
        source_size: Number of tokens in the source vocabulary.
        target_size: Number of tokens in the target vocabulary.
        d_model: Width of the residual stream.
        num_heads: Heads of every attention; divides ``d_model``.
        d_ff: Width of the feed-forward hidden layer.
        encoder_layers: Number of encoder layers, 0 or more.
        decoder_layers: Number of decoder layers, 0 or more.
        dropout: Probability of dropping an element of a sub-layer's output and of the embedding sum (section 5.4).
        attention_dropout: Probability of dropping an attention weight. The paper's text has none.
        attention: ``dot_product`` (section 3.2.1) or ``additive`` (Bahdanau et al. 2015) in its place.
        scale: Factor on dot-product scores: ``sqrt`` is 1/sqrt(d_k), ``linear`` 1/d_k, ``none`` 1.
            Additive scores are never scaled.
        positions: How the model knows the order of the tokens.
        position_base: Base of the sinusoids and of the rotary angles; 10000 in the paper.
        norm: Where layer normalisation stands: ``post`` LN(x + f(x)) as in the paper, ``pre`` x + f(LN(x)),
            ``deepnorm`` LN(alpha x + f(x)) (Wang et al. 2022), ``none`` x + f(x).
        residual: Whether x is added. Without it a sub-layer's output takes the stream's place: LN(f(x)), f(LN(x)) or
            f(x). DeepNorm is a weight of the residual, so it needs one.
        causal: Whether the decoder's self-attention is masked. Without it the decoder sees what it should predict.
        tied_embeddings: ``none``; ``target`` shares the decoder's embedding with the output projection; ``all``
            shares one matrix between source, target and output (section 3.4), which needs one vocabulary.
        max_length: Longest sequence; learned positions need a row for each.
    """

    source_size: int
    target_size: int
    d_model: int = 512
    num_heads: int = 8
    d_ff: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    attention_dropout: float = 0.0
    attention: AttentionKind = "dot_product"
    scale: ScaleKind = "sqrt"
    positions: PositionKind = "sinusoidal"
    position_base: float = 10000.0
    norm: NormKind = "post"
    residual: bool = True
    causal: bool = True
    tied_embeddings: TieKind = "target"
    max_length: int = 512

    def __post_init__(self) -> None:
        for name in ("source_size", "target_size", "d_model", "num_heads", "d_ff", "max_length"):
            require_integer(name, getattr(self, name), low=1, high=MAX_WIDTH)
        for name in ("encoder_layers", "decoder_layers"):
            require_integer(name, getattr(self, name), low=0, high=MAX_LAYERS)
        for name in ("dropout", "attention_dropout"):
            require_number(name, getattr(self, name), low=0.0, below=1.0)
        require_number("position_base", self.position_base, low=1.0, below=float("inf"))
        for name in ("residual", "causal"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be true or false.")
        for name, kind in CHOICES.items():
            require_choice(name, getattr(self, name), get_args(kind))
        if self.d_model % self.num_heads:
            raise ValueError(
                f"d_model is {self.d_model} and num_heads is {self.num_heads}; "
                "d_model must be a multiple of num_heads."
            )
        if self.norm == "deepnorm" and not self.residual:
            raise ValueError(
                "norm is 'deepnorm' and residual is false; DeepNorm is a weight of the residual connection, "
                "so residual must be true."
            )
        if self.positions == "rotary" and self.d_k % 2:
            raise ValueError(
                f"positions is 'rotary' and d_model / num_heads is {self.d_k}; rotary positions turn pairs "
                "of dimensions, so d_model / num_heads must be even."
            )
        if self.tied_embeddings == "all" and self.source_size != self.target_size:
            raise ValueError(
                f"tied_embeddings is 'all' but the vocabularies have {self.source_size} and {self.target_size} "
                "tokens; tying all embeddings needs one shared vocabulary."
            )

    @property
    def d_k(self) -> int:
        """Width of one head's queries, keys and values."""
        return self.d_model // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Build a configuration from plain values.

        Raises:
            ValueError: If a field is unknown, missing, or has a value that is not allowed.
        """
        return build(cls, values, "model")


CHOICES = {
    "attention": AttentionKind,
    "scale": ScaleKind,
    "positions": PositionKind,
    "norm": NormKind,
    "tied_embeddings": TieKind,
}


def build(cls: type, values: dict[str, Any], section: str) -> Any:
    """Make the dataclass `cls` from `values`, with a sentence for unknown and missing fields.

    Raises:
        ValueError: If a field is unknown or a field without default is missing.
    """
    if not isinstance(values, dict):
        raise ValueError(f"[{section}] must be a table of settings, not {values!r}.")
    known = {field.name: field for field in fields(cls)}
    for name in values:
        if name not in known:
            raise ValueError(f"{section}.{name} is not a setting; allowed are {', '.join(known)}.")
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"[{section}] is incomplete: {error}.") from error


def require_integer(name: str, value: Any, *, low: int, high: int) -> None:
    """Raise ValueError unless `value` is an integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from {low} to {high}.")


def require_number(name: str, value: Any, *, low: float, below: float) -> None:
    """Raise ValueError unless `value` is a number in [low, below)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < below:
        raise ValueError(
            f"{name} is {value!r}; it must be a number of at least {low:g} and less than {below:g}."
        )


def require_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}.")
