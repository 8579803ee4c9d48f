"""Items as a language model reads them: one more part of every item's vector."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from service.contract.features import Float32s
from training.config import READ_ONCE, TextConfig
from training.text.augment import TextAugmenter, make_augmenter
from training.text.cache import encode_texts
from training.text.encoder import TextEncoder, load_text_encoder
from training.text.policies import Tuner, make_tuner
from training.text.whitening import Whitening, fit_whitening

# Of whitened vectors, whose columns have unit variance: so a text's part of an item's vector is as
# long at first as its identity's.
PROJECTION_STD = 0.02


class ItemTexts(nn.Module):
    """Whitened vectors of all items' texts, projected to (num_items + 1, dim).

    Items without a text have a zero vector. Where the language model learns, a step reads some of
    the batch's items anew (`reading`), and `refresh` reads all; between, vectors are as they were.
    """

    vectors: Tensor
    mean: Tensor
    matrix: Tensor

    def __init__(
        self,
        config: TextConfig,
        texts: Sequence[str],
        dim: int,
        encoder: TextEncoder,
        vectors: Float32s,
        *,
        num_steps: int = 1,
    ) -> None:
        super().__init__()
        self.config = config
        self._texts = tuple(texts)
        has_text = torch.tensor([bool(text) for text in texts])
        whitening = fit_whitening(vectors[has_text.numpy()])
        whitened = torch.from_numpy(whitening.apply(vectors)) * has_text[:, None]
        self.register_buffer("vectors", whitened)
        self.register_buffer("mean", torch.from_numpy(whitening.mean))
        self.register_buffer("matrix", torch.from_numpy(whitening.matrix))
        self._has_text = has_text
        self.projection = _Leading(dim) if config.policy == "frozen" else _linear(whitened, dim)
        self.encoder: TextEncoder | None = None
        self._tuner: Tuner | None = None
        self._augmenter: TextAugmenter | None = None
        if config.policy not in READ_ONCE:
            # Before the network is changed: its word vectors as they were pre-trained.
            words = encoder.body.get_input_embeddings().weight  # type: ignore[operator]  # a method
            self._augmenter = make_augmenter(config, encoder.tokenizer.get_vocab(), words.detach())
            self._tuner = make_tuner(encoder.body, config, num_steps)
            encoder.body = self._tuner.body
            self.encoder = encoder
        self._chosen: Tensor | None = None

    def forward(self) -> Tensor:
        """Return what texts add to the vectors of all items, (num_items + 1, dim), row 0 zero."""
        if self._chosen is None or not len(self._chosen):
            return self.project(self.vectors)
        anew = self._read([self._texts[item] for item in self._chosen.tolist()])
        vectors = self.vectors.index_copy(0, self._chosen, anew.to(self.vectors.dtype))
        return self.project(vectors)

    def project(self, whitened: Tensor) -> Tensor:
        """Return item vectors (..., dim) of whitened text vectors (..., text_dim)."""
        projected: Tensor = self.projection(whitened)
        return projected

    def with_identity(self, identity: Tensor) -> Tensor:
        """Return identities (num_items + 1, dim), in training without those drawn to go without."""
        if not (self.training and self.config.id_dropout):
            return identity
        drawn = torch.rand(len(identity), 1, device=identity.device)
        stays = (drawn >= self.config.id_dropout) | ~self._has_text[:, None].to(identity.device)
        return identity * stays

    @contextmanager
    def reading(self, *items: Tensor) -> Iterator[None]:
        """Read some of these items anew while the context lasts: of the first tensor's first."""
        if self.encoder is not None and self.training:
            self._chosen = self._some_of(items)
        try:
            yield
        finally:
            self._chosen = None

    def _some_of(self, items: Sequence[Tensor]) -> Tensor:
        """Return at most `texts_per_step` different items that have a text."""
        chosen = self.vectors.new_zeros(0, dtype=torch.int64)
        for group in items:
            unique = torch.unique(group)
            fits = self._has_text.to(unique.device)[unique] & ~torch.isin(unique, chosen)
            unique = unique[fits]
            drawn = unique[torch.randperm(len(unique), device=unique.device)]
            chosen = torch.cat([chosen, drawn])[: self.config.texts_per_step]
        return chosen

    def _read(self, texts: Sequence[str]) -> Tensor:
        if self.encoder is None:
            raise RuntimeError(f"the policy {self.config.policy!r} reads texts once")
        if self._augmenter is not None:
            # By torch's own generator, which a run seeds by epoch.
            seed = int(torch.randint(2**31, ()))
            texts = self._augmenter(texts, np.random.default_rng(seed))
        tokens = self.encoder.tokenize(texts)
        device = self.vectors.device
        ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
        pooled: Tensor = self.encoder(ids, mask)
        return (pooled - self.mean) @ self.matrix

    def refresh(self) -> None:
        """Read all texts with the language model as it is now; does nothing where it stays."""
        if self.encoder is None:
            return
        read = encode_texts(self.encoder, self._texts, None)
        self.vectors.copy_(torch.from_numpy(self.whitening.apply(read)) * self._has_text[:, None])

    @property
    def whitening(self) -> Whitening:
        """The map from what the language model says to `vectors`."""
        return Whitening(self.mean.cpu().numpy(), self.matrix.cpu().numpy())

    def new_rows(self, texts: Sequence[str]) -> Tensor:
        """Return what texts alone give, (texts, dim), zero for "": items known by nothing else."""
        read = self.whitening.apply(encode_texts(self.serving_encoder(), texts, None))
        has_text = torch.tensor([bool(text) for text in texts])[:, None]
        return self.project((torch.from_numpy(read) * has_text).to(self.vectors.device))

    def set_learning(self) -> None:
        """Let those parameters of the language model learn that the policy names."""
        if self._tuner is not None:
            self._tuner.set_learning()

    def extra_loss(self) -> Tensor | None:
        """Return what the policy adds to the loss, if anything."""
        return None if self._tuner is None else self._tuner.extra_loss()

    def after_step(self, step: int) -> None:
        """Let the policy do what it does after an optimiser step, counted from 1."""
        if self._tuner is not None:
            self._tuner.after_step(step)

    def serving_encoder(self) -> TextEncoder:
        """Return the language model as it is exported."""
        encoder = load_text_encoder(self.config)
        if self._tuner is not None:
            encoder.body = self._tuner.merged()
        return encoder


class _Leading(nn.Module):
    """The `dim` leading components, scaled by one learned number."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.gain = nn.Parameter(torch.tensor(PROJECTION_STD))

    def forward(self, whitened: Tensor) -> Tensor:
        leading = whitened[..., : self.dim] * self.gain
        return nn.functional.pad(leading, (0, self.dim - leading.shape[-1]))


def _linear(whitened: Tensor, dim: int) -> nn.Linear:
    """Return a projection that starts as the leading components do."""
    projection = nn.Linear(whitened.shape[1], dim, bias=False)
    with torch.no_grad():
        projection.weight.copy_(torch.eye(dim, whitened.shape[1]) * PROJECTION_STD)
    return projection


def make_item_texts(
    config: TextConfig, texts: Sequence[str], dim: int, cache: Path, *, num_steps: int = 1
) -> ItemTexts:
    """Read items' texts by the configured language model; `texts` are by item index, row 0 "".

    Raises TrainingError for weights that are not there or cannot be read.
    """
    encoder = load_text_encoder(config)
    vectors = encode_texts(encoder, texts, cache)
    return ItemTexts(config, texts, dim, encoder, vectors, num_steps=num_steps)
