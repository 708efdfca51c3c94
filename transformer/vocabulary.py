"""Vocabularies: from text to token ids and back, with the place of each token in the text.

Alphabetic scripts are cut into sub-words by byte-pair encoding (Sennrich et al. 2016, as in section 5.1 of the paper);
every Chinese character is a token of its own, so mixed text needs no segmenter. Toy tasks use whole words or
characters instead. A space belongs to the token after it, where it is written ``▁``; before Chinese characters and
symbols it carries nothing and is dropped.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tokenizers import Encoding, Regex, Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.normalizers import NFC, Lowercase, Normalizer, Replace, Strip
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import Metaspace, PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.trainers import BpeTrainer

from transformer.files import write_atomically

PAD, BOS, EOS, UNK = range(4)
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
SPACE = "▁"
VISIBLE_SPACE = "␣"
UNKNOWN_TEXT = "⁇"

Level = Literal["bpe", "word", "character"]

# A space before anything but a letter, a digit or a mark of an alphabetic script is dropped.
DROPPED_SPACE = r"▁(?=\p{Han}|[\u3000-\u303F\uFF00-\uFFEF]|[^\p{L}\p{M}\p{N}\p{P}\p{Sm}\p{Sc}\p{Sk}])|▁$"
LETTER = r"(?!\p{Han})[\p{L}\p{M}]"
# One Chinese character, one digit, one word with its apostrophes, or one grapheme of anything else.
PIECE = rf"\p{{Han}}|▁?\p{{N}}|▁?(?:{LETTER})+(?:'(?:{LETTER})+)*|▁?\X"


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A text as tokens. All sequences have one entry a token.

    Attributes:
        text: The text as it was given.
        ids: Token ids, without BOS and EOS.
        tokens: What each token stands for in `text`; an unknown token shows what it was.
        offsets: Start and end of each token in `text`, in characters.
        words: Number of the word each token belongs to, from 0. Every Chinese character is a word.
        unknown: Whether the vocabulary lacks the token.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    words: tuple[int, ...]
    unknown: tuple[bool, ...]


class Vocabulary:
    """Tokens with their ids. Ids 0 to 3 are PAD, BOS, EOS and UNK; no text is ever encoded as one of the first three.

    Args:
        tokens: The tokens in the order of their ids; the first four are `SPECIAL_TOKENS`.
        merges: Pairs that byte-pair encoding joins, in order; empty for the other levels.
        level: ``bpe``, ``word`` or ``character``.
        lowercase: Whether text is lowercased.

    Raises:
        ValueError: If these do not fit together.
    """

    def __init__(
        self, *, tokens: Sequence[str], merges: Sequence[tuple[str, str]], level: Level, lowercase: bool
    ) -> None:
        if tuple(tokens[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
            raise ValueError(f"A vocabulary begins with the tokens {', '.join(SPECIAL_TOKENS)}.")
        self.level: Level = level
        self.lowercase = lowercase
        self._tokens = tuple(tokens)
        self._merges = tuple(merges)
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        if len(self._ids) != len(self._tokens):
            raise ValueError("A vocabulary must not hold a token twice.")
        for left, right in self._merges:
            if not {left, right, left + right} <= self._ids.keys():
                raise ValueError(
                    f"The merge of {left!r} and {right!r} is not made of tokens of the vocabulary."
                )
        unknown = SPECIAL_TOKENS[UNK]
        model: BPE | WordLevel
        if level == "bpe":
            model = BPE(vocab=self._ids, merges=list(self._merges), unk_token=unknown, fuse_unk=True)
        else:
            model = WordLevel(vocab=self._ids, unk_token=unknown)
        self._tokenizer = Tokenizer(model)
        self._tokenizer.normalizer = build_normalizer(lowercase)
        self._tokenizer.pre_tokenizer = build_pre_tokenizer(level)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        level: Level,
        size: int = 4000,
        lowercase: bool = False,
        min_frequency: int = 1,
    ) -> "Vocabulary":
        """Make a vocabulary from texts; the same texts always give the same.

        Args:
            texts: What to learn from.
            level: ``bpe``, ``word`` or ``character``.
            size: Most tokens, the four special ones included; the rarest are left out.
            lowercase: Whether to lowercase.
            min_frequency: Tokens (for ``bpe``, merges) seen less often are left out.

        Raises:
            ValueError: If the level is unknown, or `size` leaves no room for a token.
        """
        if level not in get_args(Level):
            raise ValueError(f"level is {level!r}; it must be one of {', '.join(get_args(Level))}.")
        if size <= len(SPECIAL_TOKENS):
            raise ValueError(f"size is {size}; it must be greater than {len(SPECIAL_TOKENS)}.")
        normalizer, pre_tokenizer = build_normalizer(lowercase), build_pre_tokenizer(level)
        texts = list(texts)
        counts = Counter(
            piece
            for text in texts
            for piece, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))
        )
        room = size - len(SPECIAL_TOKENS)
        if level == "bpe":
            characters: Counter[str] = Counter()
            for piece, count in counts.items():
                for character in piece:
                    characters[character] += count
            tokenizer = Tokenizer(BPE(unk_token=SPECIAL_TOKENS[UNK], fuse_unk=True))
            tokenizer.normalizer = normalizer
            tokenizer.pre_tokenizer = pre_tokenizer
            tokenizer.train_from_iterator(
                texts,
                BpeTrainer(
                    vocab_size=size,
                    min_frequency=min_frequency,
                    special_tokens=list(SPECIAL_TOKENS),
                    # Left to itself, the trainer breaks ties between rare characters by chance.
                    initial_alphabet=most_frequent(characters, room),
                    limit_alphabet=room,
                    show_progress=False,
                ),
            )
            model = json.loads(tokenizer.to_str())["model"]
            tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
            merges = [(left, right) for left, right in model["merges"]]
            return cls(tokens=tokens, merges=merges, level=level, lowercase=lowercase)
        frequent = {token: count for token, count in counts.items() if count >= min_frequency}
        kept = most_frequent(frequent, room)
        return cls(tokens=[*SPECIAL_TOKENS, *kept], merges=(), level=level, lowercase=lowercase)

    def __len__(self) -> int:
        return len(self._tokens)

    def token(self, index: int) -> str:
        """The token of an id, for a picture: its space, if it stands alone, is made visible."""
        token = self._tokens[index]
        return VISIBLE_SPACE if token == SPACE else token.removeprefix(SPACE)

    def encode(self, text: str) -> Encoded:
        """Cut a text into tokens."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = []
        tokens: list[str] = []
        offsets: list[tuple[int, int]] = []
        words: list[int] = []
        read = list(self._read(encoding))
        next_starts = [start for _, (start, _) in read[1:]] + [len(text)]
        for (index, (start, end)), next_start in zip(read, next_starts, strict=False):
            # The tokenizer counts the space before a token, and the space it puts before a text, to the token.
            while start < end and text[start].isspace():
                start += 1
            if self._tokens[index] == SPACE:
                end = start
            while start < end < next_start and unicodedata.combining(text[end]):
                end += 1
            ids.append(index)
            tokens.append(text[start:end] or VISIBLE_SPACE)
            words.append(word_number(text, words, offsets, start, end))
            offsets.append((start, end))
        return Encoded(
            text=text,
            ids=tuple(ids),
            tokens=tuple(tokens),
            offsets=tuple(offsets),
            words=tuple(words),
            unknown=tuple(index == UNK for index in ids),
        )

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts at once, the same as `encode` gives."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[index for index, _ in self._read(encoding)] for encoding in encodings]

    def _read(self, encoding: Encoding) -> Iterator[tuple[int, tuple[int, int]]]:
        """Ids with their offsets. A lone space before something unknown adds nothing: it becomes part of that."""
        space = self._ids.get(SPACE)
        ids, pieces = encoding.ids, encoding.word_ids
        for position, (index, offsets) in enumerate(zip(ids, encoding.offsets, strict=True)):
            following = position + 1
            if (
                index == space
                and following < len(ids)
                and ids[following] == UNK
                and pieces[following] == pieces[position]
            ):
                continue
            yield index, offsets

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids. PAD, BOS and EOS have none; UNK is written ``⁇``."""
        silent = (PAD, BOS, EOS)
        pieces = [
            UNKNOWN_TEXT if index == UNK else self._tokens[index] for index in ids if index not in silent
        ]
        return "".join(pieces).replace(SPACE, " ").strip()

    def spell(self, ids: Sequence[int]) -> Encoded:
        """The text of token ids, as `decode` writes it, with the place of each token in it.

        A special token stands for itself and takes no room in the text.
        """
        text = ""
        tokens: list[str] = []
        offsets: list[tuple[int, int]] = []
        words: list[int] = []
        for index in ids:
            special = index in (PAD, BOS, EOS)
            written = (
                "" if special else UNKNOWN_TEXT if index == UNK else self._tokens[index].replace(SPACE, " ")
            )
            if not text:
                written = written.lstrip()
            start, end = len(text) + len(written) - len(written.lstrip()), len(text) + len(written)
            text += written
            words.append(word_number(text, words, offsets, start, end))
            tokens.append(SPECIAL_TOKENS[index] if special else text[start:end] or VISIBLE_SPACE)
            offsets.append((start, end))
        return Encoded(
            text=text,
            ids=tuple(ids),
            tokens=tuple(tokens),
            offsets=tuple(offsets),
            words=tuple(words),
            unknown=tuple(index == UNK for index in ids),
        )

    def save(self, folder: Path, name: str) -> None:
        """Write ``folder/name.json``."""
        values = {
            "level": self.level,
            "lowercase": self.lowercase,
            "tokens": self._tokens,
            "merges": [f"{left} {right}" for left, right in self._merges],
        }
        write_atomically(folder / f"{name}.json", (json.dumps(values, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, folder: Path, name: str) -> "Vocabulary":
        """Read ``folder/name.json``.

        Raises:
            ValueError: If it is missing or not a vocabulary; the sentence names the file.
        """
        path = folder / f"{name}.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["level"] not in get_args(Level) or not isinstance(values["lowercase"], bool):
                raise ValueError("its level or lowercase is not known")
            if not all(isinstance(text, str) for text in (*values["tokens"], *values["merges"])):
                raise ValueError("its tokens and merges must be strings")
            left_right = [merge.split(" ") for merge in values["merges"]]
            return cls(
                tokens=values["tokens"],
                merges=[(left, right) for left, right in left_right],
                level=values["level"],
                lowercase=values["lowercase"],
            )
        except OSError as error:
            raise ValueError(f"The vocabulary {path} cannot be read ({error.strerror}).") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a vocabulary: {error}.") from error


def most_frequent(counts: Mapping[str, int], most: int) -> list[str]:
    """The most frequent first, at most so many; of equally frequent ones, the first in the order of their letters."""
    return sorted(counts, key=lambda token: (-counts[token], token))[:most]


def build_normalizer(lowercase: bool) -> Normalizer:
    """Compose accents, join white space, straighten apostrophes; the text keeps its width and case by default."""
    steps: list[Normalizer] = [
        NFC(),
        Replace(Regex(r"\s+"), " "),
        Replace(SPACE, "_"),
        Replace(Regex(r"(?<=\p{L})’(?=\p{L})"), "'"),
        Strip(),
    ]
    return Normalizers([*steps, Lowercase()] if lowercase else steps)


def build_pre_tokenizer(level: Level) -> PreTokenizer:
    """Cut text into the pieces that no token crosses."""
    if level == "character":
        space, pieces = Metaspace(SPACE, prepend_scheme="never", split=False), r"▁|\X"
    else:
        space, pieces = Metaspace(SPACE, prepend_scheme="always", split=False), PIECE
    return PreTokenizers([space, Split(Regex(DROPPED_SPACE), "removed"), Split(Regex(pieces), "isolated")])


def word_number(
    text: str, words: Sequence[int], offsets: Sequence[tuple[int, int]], start: int, end: int
) -> int:
    """Number of the word that a token from `start` to `end` belongs to, after the tokens so far."""
    if not words:
        return 0
    continues = 0 < start < end and offsets[-1][1] == start and joined(text[start - 1], text[start])
    return words[-1] + (not continues)


def joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters stand in one word."""
    return all(
        character in "'’" or (character.isalnum() and not is_han(character)) for character in (left, right)
    )


def is_han(character: str) -> bool:
    """Whether a character is Chinese."""
    code = ord(character)
    return (
        0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x323AF or code == 0x3007
    )
