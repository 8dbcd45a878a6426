"""Text to tokens and back, as llama.cpp does it for SentencePiece vocabularies (llm_tokenizer_spm of llama-vocab.cpp)."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence

UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6
"""Kinds of tokens (LLAMA_TOKEN_TYPE_* of llama.h)."""
SPACE = "▁".encode()
"""What stands for a space inside a token."""


class Vocabulary:
    """A vocabulary.

    Args:
        texts: the tokens' bytes.
        scores: of two possible merges the one with the higher score is made first.
        kinds: the tokens' kinds.
        start: the token that begins every prompt; None: none does.
        ends: tokens that end a text.
        space_prefix: whether a text is read as if a space stood before it.
    """

    def __init__(
        self,
        texts: Sequence[bytes],
        scores: Sequence[float],
        kinds: Sequence[int],
        start: int | None,
        ends: set[int],
        space_prefix: bool,
    ) -> None:
        self._texts, self._scores, self._kinds = texts, scores, kinds
        self._start, self.ends, self._space_prefix = start, ends, space_prefix
        self._numbers = {text: number for number, text in enumerate(texts)}
        special = sorted((texts[n] for n, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)), key=len, reverse=True)
        self._special = re.compile(b"|".join(map(re.escape, special))) if special else None
        # llama.cpp looks for these names where the metadata do not say (llama-vocab.cpp)
        self.ends |= {self._numbers[name] for name in (b"<end_of_turn>", b"<eos>", b"</s>") if name in self._numbers}

    def encode(self, text: str) -> list[int]:
        """Return a prompt's tokens, special ones written out in it included."""
        tokens = [] if self._start is None else [self._start]
        for part, is_special in self._parts(text.encode()):
            tokens += [self._numbers[part]] if is_special else self._merged(part)
        return tokens

    def _parts(self, text: bytes) -> Iterable[tuple[bytes, bool]]:
        at = 0
        for found in self._special.finditer(text) if self._special else ():
            if found.start() > at:
                yield text[at : found.start()], False
            yield found[0], True
            at = found.end()
        if at < len(text):
            yield text[at:], False

    def _merged(self, text: bytes) -> list[int]:
        """Join characters to ever longer tokens, the pair of the best score first, and of equal ones the leftmost."""
        escaped = ((b" " if self._space_prefix else b"") + text).replace(b" ", SPACE)
        pieces: list[bytes] = [character.encode() for character in escaped.decode()]
        following = [*range(1, len(pieces)), -1]
        before = list(range(-1, len(pieces) - 1))
        waiting: list[tuple[float, int, int, bytes]] = []

        def propose(left: int, right: int) -> None:
            if left >= 0 and right >= 0 and (number := self._numbers.get(pieces[left] + pieces[right])) is not None:
                heapq.heappush(waiting, (-self._scores[number], left, right, pieces[left] + pieces[right]))

        for left in range(len(pieces) - 1):
            propose(left, left + 1)
        while waiting:
            _, left, right, joined = heapq.heappop(waiting)
            if not pieces[left] or not pieces[right] or pieces[left] + pieces[right] != joined or following[left] != right:
                continue  # one of the two has become part of another since
            pieces[left], pieces[right] = joined, b""
            following[left] = following[right]
            if following[left] >= 0:
                before[following[left]] = left
            propose(before[left], left)
            propose(left, following[left])
        return [number for piece in pieces if piece for number in self._numbered(piece)]

    def _numbered(self, piece: bytes) -> list[int]:
        if piece in self._numbers:
            return [self._numbers[piece]]
        return [self._numbers[f"<0x{byte:02X}>".encode()] for byte in piece]

    def decode(self, tokens: Iterable[int]) -> bytes:
        """Return the text of tokens, as bytes: a character may be spread over several of them."""
        return b"".join(self._bytes(token) for token in tokens)

    def _bytes(self, token: int) -> bytes:
        text = self._texts[token]
        if self._kinds[token] == BYTE:
            return bytes([int(text[3:5], 16)])
        return text if self._kinds[token] in (CONTROL, USER_DEFINED) else text.replace(SPACE, b" ")
