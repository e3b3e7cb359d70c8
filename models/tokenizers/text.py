"""The text tokenizer: SentencePiece, fitted to a corpus or any SentencePiece model given by its path.

Nothing is normalised and unknown characters fall back to bytes, so that ``decode(encode(text)) == text`` for any text.
"""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import InputError
from models.io import ModelMeta, save_model

KIND = "text"
PAD, EOS, BOS, UNKNOWN = 0, 1, 2, 3


@dataclass(frozen=True)
class TextConfig:
    """Attributes:
    vocabulary: most pieces, of which 256 are bytes and 4 control tokens; a small corpus gives fewer.
    model: a SentencePiece model file to take as it is; then nothing is fitted.
    """

    vocabulary: int = 1024
    model: str = ""


def fit(lines: Iterable[str], config: TextConfig) -> bytes:
    """Fits a SentencePiece model by byte pairs, which a small corpus fills best; the same lines give the same bytes.

    Raises:
        InputError: there is no text.
    """
    import sentencepiece

    pieces = [part for line in lines for part in line.splitlines(keepends=False) if part.strip()]
    if not pieces:
        raise InputError("text: the corpus has no text to fit a tokenizer to")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(pieces),
        model_writer=out,
        model_type="bpe",
        vocab_size=config.vocabulary,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        max_sentence_length=1 << 20,
        num_threads=1,
        pad_id=PAD,
        eos_id=EOS,
        bos_id=BOS,
        unk_id=UNKNOWN,
        minloglevel=2,
    )
    return out.getvalue()


def save(directory: Path | str, model: bytes, config: TextConfig, extra: dict | None = None) -> str:
    """Writes a SentencePiece model as a tokenizer directory; returns its hash."""
    return save_model(directory, KIND, config, {"model": np.frombuffer(model, np.uint8)}, extra)


class TextTokenizer:
    """A SentencePiece model; text in, int32 ids out."""

    kind = KIND

    def __init__(self, config: dict, params: dict, meta: ModelMeta):
        self._start(params["model"].tobytes(), meta.weights_sha256)

    @classmethod
    def from_file(cls, path: Path | str) -> "TextTokenizer":
        """Reads a plain ``.model`` file of SentencePiece."""
        data = Path(path).read_bytes()
        tokenizer = cls.__new__(cls)
        tokenizer._start(data, hashlib.sha256(data).hexdigest())
        return tokenizer

    def _start(self, model: bytes, digest: str) -> None:
        import sentencepiece

        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise InputError(f"text: not a SentencePiece model: {error}") from error
        self.codebook_sizes = (self._processor.get_piece_size(),)
        self.weights_sha256 = digest
        self.pad_id, self.eos_id = self._processor.pad_id(), self._processor.eos_id()

    def encode(self, text: str) -> np.ndarray:
        """str -> int32 (n,); no control tokens are added."""
        return np.array(self._processor.encode(text), np.int32)

    def decode(self, codes: np.ndarray) -> str:
        """int (n,) -> str; control tokens give nothing."""
        return self._processor.decode([int(code) for code in np.asarray(codes).ravel()])

    def pieces(self) -> list[str]:
        """Returns what each id writes; nothing for control tokens and for bytes that are no character by themselves."""
        return [self._piece(index) for index in range(self.codebook_sizes[0])]

    def _piece(self, index: int) -> str:
        processor = self._processor
        if processor.is_control(index) or processor.is_unknown(index) or processor.is_unused(index):
            return ""
        piece = processor.id_to_piece(index)
        if processor.is_byte(index):
            value = int(piece[3:-1], 16)
            return chr(value) if value < 128 else ""
        return piece.replace("\u2581", " ")
