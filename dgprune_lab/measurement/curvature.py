"""Curvature of the mean loss in the space of all parameters: gradients, eigenpairs and trace of the Hessian."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core import DgpruneError, Domain, full_precision, generator, pass_room
from ..pruning import deep_copy, device_of
from .batch_size import GRADIENT_BYTES, bytes_per_image, layout_of
from .gradients import gradients_of
from .lanczos import lanczos, lanczos_vectors

Result = TypeVar("Result")
Steps = Generator[None, None, Result]

EIGENVECTOR_BYTES = 2**31
"""Maximum bytes of the vectors that the search for eigenvectors holds; at most half of the available memory."""
TOGETHER = 100
"""Maximum number of images of one Hessian-vector product; a caller can cancel between two products."""
_MARGIN = 4  # a Hessian-vector product holds at most about this many times the maps of a pass with gradients


class Curvature:
    """The mean cross-entropy over some images as a function of all parameters, trained or frozen, in eval mode.

    A private copy runs; the network stays unchanged. BatchNorm uses its running statistics; its scale and shift are
    parameters. All methods but `displacement` and `check_top` are generators that yield between batches.

    Args:
        model: any classifier.
        domains, split, images: the first `images` images, with labels, of this split of each domain; None for all.
        device: where the copy runs; None for the network's device.

    Attributes:
        weights: (P,) all parameters, concatenated.
        names: names of the parameters in this order.
        images: number of images.
    """

    def __init__(
        self,
        model: nn.Module,
        domains: Sequence[Domain],
        *,
        split: str,
        images: int | None,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or device_of(model)
        self._twin = deep_copy(model).to(self.device).eval().requires_grad_(False)
        floating = [(name, tensor) for name, tensor in self._twin.named_parameters() if tensor.is_floating_point()]
        self.names = [name for name, _ in floating]
        self._tensors: list[Any] = [tensor.requires_grad_() for _, tensor in floating]
        self._sizes = [tensor.numel() for tensor in self._tensors]
        self.weights = torch.cat([tensor.detach().flatten() for tensor in self._tensors])
        self._domains, self._split, self._limit = list(domains), split, images
        self.images = sum(len(domain.rows(split, images)) for domain in domains)
        self._layout = layout_of(self._twin, self._domains[0])
        example = self._domains[0].take(torch.arange(1), device=self.device, layout=self._layout).images
        peak, _ = bytes_per_image(self._twin, example, gradients=True)
        self._size = max(1, min(TOGETHER, pass_room(GRADIENT_BYTES) // (_MARGIN * max(1, peak))))

    @property
    def batches(self) -> int:
        """Number of batches of one pass over the images."""
        return sum(-(-len(domain.rows(self._split, self._limit)) // self._size) for domain in self._domains)

    def displacement(self, model: nn.Module) -> Tensor:
        """Return (P,): the parameters of a model of the same shapes, such as a masked copy, minus `weights`."""
        owners = (name.rpartition(".") for name in self.names)
        tensors = [getattr(model.get_submodule(owner), leaf).detach() for owner, _, leaf in owners]
        return torch.cat([tensor.flatten() for tensor in tensors]).to(self.weights) - self.weights

    def losses(self, displacement: Tensor | None = None) -> Steps[Tensor]:
        """Return the loss of each image, (N,) float64, with all parameters moved by a vector (P,)."""
        losses = []
        for images, labels in self._batches():
            with torch.no_grad(), full_precision(self.device):
                self._set_weights(self.weights if displacement is None else self.weights + displacement)
                losses.append(F.cross_entropy(self._twin(images), labels, reduction="none").double().cpu())
                self._set_weights(self.weights)
            yield
        return torch.cat(losses)

    def gradient(self) -> Steps[Tensor]:
        """Return the gradient of the mean loss, (P,)."""
        total = torch.zeros_like(self.weights)
        for images, labels in self._batches():
            total += self._batch_gradient(images, labels) * (len(images) / self.images)
            yield
        return total

    def squared_gradients(self) -> Steps[Tensor]:
        """Return the squared norm of the gradient of each image's loss, (N,) float64; yields between images."""
        squares = []
        for images, labels in self._batches():
            for image, label in zip(images.split(1), labels.split(1), strict=True):
                squares.append(self._batch_gradient(image, label).double().square().sum().cpu())
                yield
        return torch.stack(squares)

    def product(self, vectors: Tensor) -> Steps[Tensor]:
        """Return the Hessian times a vector (P,) or the columns of (P, K)."""
        total = torch.zeros_like(vectors)
        for images, labels in self._batches():
            total += self._batch_hessian(images, labels) @ vectors * (len(images) / self.images)
            yield
        return total

    def trace(self, *, draws: int, seed: int) -> Steps[NDArray[np.float64]]:
        """Return (draws,) independent unbiased estimates of the Hessian's trace; their mean is the final estimate.

        Each is the mean over batches of z' H z: H is the batch's Hessian, z a new vector of random signs for every
        batch (Girard 1989, Hutchinson 1989); one vector for all batches would cost the same and vary more.
        """
        total, signs = torch.zeros(draws, dtype=torch.float64), generator("hessian trace", seed)
        for images, labels in self._batches():
            bits = torch.randint(2, (draws, len(self.weights)), generator=signs, dtype=torch.int8).T
            vectors = (2 * bits - 1).to(self.weights)
            squares = (vectors * (self._batch_hessian(images, labels) @ vectors)).double().sum(0)
            total += squares.cpu() * (len(images) / self.images)
            yield
        return total.numpy()

    def top(self, count: int, *, seed: int) -> Steps[tuple[NDArray[np.float64], Tensor]]:
        """Return the `count` largest eigenvalues of the Hessian, largest first, and unit eigenvectors (P, count).

        Computed by ARPACK's Lanczos iteration from a random start, or exactly, from all P products, where that is no
        more work. The entry of largest magnitude of each eigenvector is positive.

        Raises:
            DgpruneError: more eigenvalues than parameters, vectors that would take too much memory, no convergence.
        """
        size, basis = len(self.weights), lanczos_vectors(count)
        self.check_top(count)
        start = torch.randn(size, generator=generator("lanczos", seed)).to(self.weights)
        if basis >= size:
            hessian = yield from self.product(torch.eye(size).to(self.weights))
            values, vectors = torch.linalg.eigh((hessian + hessian.T).cpu().double() / 2)
        elif not (first := (yield from self.product(start))).isfinite().all():
            raise DgpruneError("the Hessian of this network is not finite; its training has diverged.")
        elif not first.any():  # a Hessian of zeros, on which ARPACK fails
            values, vectors = torch.zeros(count), torch.eye(size, count)
        else:
            steps = lanczos(self._multiply, start.cpu().numpy(), count=count, seed=seed)
            values, vectors = map(torch.from_numpy, (yield from steps))
        order = values.argsort(descending=True, stable=True)[:count]
        vectors = vectors[:, order].to(self.weights)
        signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        return values[order].double().numpy(), vectors * signs

    def _multiply(self, vector: NDArray[Any]) -> Steps[NDArray[Any]]:
        product = yield from self.product(torch.from_numpy(vector).to(self.weights))
        return product.cpu().numpy()

    def check_top(self, count: int) -> None:
        """Refuse a search for `count` eigenvectors as `top` does, before anything is allocated."""
        basis, size = lanczos_vectors(count), len(self.weights)
        if count > size:
            raise DgpruneError(
                f"top must be at most the number of parameters, which is {size:,} in this network; got {count:,}."
            )
        needed, limit = basis * size * self.weights.element_size(), pass_room(EIGENVECTOR_BYTES)
        if needed > limit:
            raise DgpruneError(
                f"the search for {count} eigenvectors of {size:,} parameters would hold {basis} vectors, "
                f"{needed / 1e9:.1f} GB; the limit is {limit / 1e9:.1f} GB (at most {EIGENVECTOR_BYTES / 1e9:.1f} GB "
                "and half of the available memory). Take a smaller top or a smaller network; `hessian_trace` and "
                "`sam_sharpness` need no eigenvectors."
            )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for domain in self._domains:
            for batch in domain.batches(
                self._split, size=self._size, images=self._limit, device=self.device, layout=self._layout
            ):
                assert batch.labels is not None
                yield batch.images, batch.labels

    def _set_weights(self, weights: Tensor) -> None:
        for tensor, part in zip(self._tensors, weights.split(self._sizes), strict=True):
            tensor.data.copy_(part.view(tensor.shape))

    def _batch_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient (P,) of the mean loss of these images."""
        with torch.enable_grad(), full_precision(self.device):
            gradients = gradients_of(F.cross_entropy(self._twin(images), labels), self._tensors)
        return torch.cat([gradient.flatten() for gradient in gradients])

    def _batch_hessian(self, images: Tensor, labels: Tensor) -> Any:
        """Return the Hessian of the mean loss of these images, as a linear operator."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a package that curvlinops imports uses deprecated parts of PyTorch
            from .hessian import Hessian

        data = [(images, labels)]
        return Hessian(
            self._twin, nn.CrossEntropyLoss(), self._tensors, data, check_deterministic=False, num_data=len(images)
        )
