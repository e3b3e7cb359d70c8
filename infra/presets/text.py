"""Text tokenizer: SentencePiece. The paper's 256,128 pieces are PaLM 2's, not public; PAPER asks for as many."""

from models.tokenizers.text import TextConfig

TINY = TextConfig(vocabulary=1024)
PAPER = TextConfig(vocabulary=256_128)
