"""What the models read, each question computed once however many people ask it."""

import re

import streamlit as st
import torch

from lab.ui.checkpoints import OPPOSITE, load_checkpoint
from transformer.analysis.ablation import Ablation, Mode, ablate_head
from transformer.analysis.reading import MapName, Reading, read
from transformer.vocabulary import is_han

MOST_TOKENS = 128
# Which script a translation model reads: whether its letters are Chinese.
READS_CHINESE = {"en-zh": False, "zh-en": True}


def read_sentence(name: str, source: str, target: str, beam: int) -> Reading:
    """Read a source with a checkpoint; an empty target is written by the model.

    Raises:
        LengthError: If a text has more than `MOST_TOKENS` tokens.
        ValueError: If the source is empty or the checkpoint cannot be loaded.
    """
    checkpoint = load_checkpoint(name)
    return _read(checkpoint.hash, name, source.strip(), target.strip(), beam)


@st.cache_resource(max_entries=32, show_spinner=False)
def _read(checkpoint_hash: str, name: str, source: str, target: str, beam: int) -> Reading:
    keep = ("*.weights", "*.mask")
    return read(load_checkpoint(name), source, target or None, beam=beam, limit=MOST_TOKENS, keep=keep)


def without_head(
    name: str, reading: Reading, map_name: MapName, layer: int, head: int, mode: Mode
) -> Ablation:
    """What becomes of the probabilities of a reading's target when one head is taken out."""
    checkpoint = load_checkpoint(name)
    return _without_head(
        checkpoint.hash, name, reading.source.ids, reading.target.ids, map_name, layer, head, mode
    )


@st.cache_data(max_entries=512, show_spinner=False)
def _without_head(
    checkpoint_hash: str,
    name: str,
    source_ids: tuple[int, ...],
    target_ids: tuple[int, ...],
    map_name: MapName,
    layer: int,
    head: int,
    mode: Mode,
) -> Ablation:
    return ablate_head(
        load_checkpoint(name).model,
        torch.tensor([source_ids]),
        torch.tensor([target_ids]),
        map=map_name,
        layer=layer,
        head=head,
        mode=mode,
    )


def other_direction(name: str, source: str) -> str | None:
    """The checkpoint that translates the other way, if `source` is written in the script that one reads."""
    chinese = sum(map(is_han, source))
    others = len(
        re.findall(r"[^\W\d_]+", "".join(" " if is_han(character) else character for character in source))
    )
    if name not in OPPOSITE or chinese == others or (chinese > others) == READS_CHINESE[name]:
        return None
    return OPPOSITE[name]
