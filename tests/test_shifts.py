"""Shifts of a domain, and the random augmentation of training."""

from __future__ import annotations

import pytest
import torch

from dgprune_lab import data
from dgprune_lab.core.domain import Domain
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.data.augment import AUGMENTATIONS
from dgprune_lab.data.shifts import SHIFTS


def small(*, uint8: bool = True, channels: int = 3, seed: int = 0) -> Domain:
    """Twelve random images of 3 classes."""
    pixels = torch.rand(12, channels, 10, 8, generator=torch.Generator().manual_seed(seed))
    images = (pixels * 255).to(torch.uint8) if uint8 else pixels
    splits = {"train": range(6), "score": range(6, 8), "report": range(8, 12)}
    splits = {name: torch.tensor(list(rows)) for name, rows in splits.items()}
    return Domain.from_arrays("toy", images=images, labels=torch.arange(12) % 3, splits=splits).as_role("target")


STRENGTHS = {
    "rotate": {"degrees": 25.0},
    "invert": {"share": 0.5},
    "colour": {"strength": 0.7},
    "blur": {"sigma": 0.8},
    "noise": {"sigma": 0.3},
    "contrast": {"factor": 0.5},
    "pixelate": {"block": 3},
}
NEUTRAL = {
    "rotate": {"degrees": 0.0},
    "invert": {"share": 0.0},
    "colour": {"strength": 0.0},
    "blur": {"sigma": 0.0},
    "noise": {"sigma": 0.0},
    "contrast": {"factor": 1.0},
    "pixelate": {"block": 1},
}
WRONG = {
    "rotate": ({"degrees": 181.0}, "rotate needs degrees between -180 and 180; got 181."),
    "invert": ({"share": 1.5}, "invert needs share between 0 and 1; got 1.5."),
    "colour": ({"strength": -0.1}, "colour needs strength between 0 and 1; got -0.1."),
    "blur": ({"sigma": float("nan")}, "blur(): sigma must be a finite number; got nan (float)."),
    "noise": ({"sigma": -1.0}, "noise needs sigma between 0 and 2; got -1."),
    "contrast": ({"factor": 11.0}, "contrast needs factor between 0 and 10; got 11."),
    "pixelate": ({"block": 9}, "pixelate needs block between 1 and 8; got 9."),
}


class TestShifts:
    def test_every_shift_is_tested(self) -> None:
        assert set(SHIFTS) == set(STRENGTHS) == set(NEUTRAL) == set(WRONG)

    @pytest.mark.parametrize("uint8", [True, False])
    @pytest.mark.parametrize("name", SHIFTS)
    def test_contract(self, name: str, uint8: bool) -> None:
        domain, shift = small(uint8=uint8), SHIFTS[name]
        before, state = domain.images.clone(), torch.get_rng_state()
        shifted = shift(domain, **STRENGTHS[name], seed=4)
        assert torch.equal(domain.images, before) and torch.equal(torch.get_rng_state(), state)
        assert shifted.images.dtype == domain.images.dtype and shifted.images.shape == domain.images.shape
        assert shifted.images.min() >= 0 and shifted.images.max() <= (255 if uint8 else 1)
        assert not torch.equal(shifted.images, before)
        assert shifted.name.startswith("toy ") and shifted.origin.endswith(f"; {shifted.name[4:]}")
        assert shifted.labels is domain.labels and shifted.classes == 3 and shifted.role == "target"
        assert all(torch.equal(shifted.splits[split], rows) for split, rows in domain.splits.items())
        assert torch.equal(shift(domain, **STRENGTHS[name], seed=4).images, shifted.images)

    @pytest.mark.parametrize("name", ["invert", "colour", "noise"])
    def test_another_seed_is_another_draw(self, name: str) -> None:
        one, two = (SHIFTS[name](small(), **STRENGTHS[name], seed=seed).images for seed in (0, 1))
        assert not torch.equal(one, two)

    @pytest.mark.parametrize("uint8", [True, False])
    @pytest.mark.parametrize("name", SHIFTS)
    def test_neutral_strength_changes_nothing(self, name: str, uint8: bool) -> None:
        domain = small(uint8=uint8)
        torch.testing.assert_close(SHIFTS[name](domain, **NEUTRAL[name]).images, domain.images, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("name", SHIFTS)
    def test_a_strength_out_of_range_is_refused(self, name: str) -> None:
        strength, sentence = WRONG[name]
        with pytest.raises(DgpruneError) as caught:
            SHIFTS[name](small(), **strength)
        assert str(caught.value) == sentence

    @pytest.mark.parametrize("name", SHIFTS)
    def test_a_dataset_is_shifted_when_it_is_read(self, name: str) -> None:
        domain = small()
        assert domain.labels is not None
        pairs = list(zip(domain.images, domain.labels.tolist(), strict=True))
        lazy = Domain.from_dataset("toy", pairs, splits=domain.splits)  # type: ignore[arg-type]
        one, two = (SHIFTS[name](each, **STRENGTHS[name], seed=2) for each in (lazy, domain))
        assert not isinstance(one.images, torch.Tensor) and one.images.dtype == torch.uint8
        torch.testing.assert_close(next(one.batches("report")).images, next(two.batches("report")).images)

    @pytest.mark.parametrize("share", [0.4, 1.0])
    def test_inverted_twice_is_as_before(self, share: float) -> None:
        domain = small()
        once = data.invert(domain, share=share, seed=5)
        assert torch.equal(data.invert(once, share=share, seed=5).images, domain.images)
        whole = data.invert(domain)
        assert whole.name == "toy inverted" and torch.equal(whole.images, 255 - domain.images)

    def test_rotation_is_counter_clockwise_and_exact_at_quarter_turns(self) -> None:
        images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
        domain = Domain.from_arrays("toy", images=images, labels=[0, 1], splits={"report": [0, 1]})
        quarter = data.rotate(domain, degrees=90).images
        assert torch.equal(quarter, images.rot90(1, (2, 3)))
        torch.testing.assert_close(data.rotate(domain, degrees=89.999).images, quarter, atol=1e-3, rtol=0)
        assert torch.equal(data.rotate(domain, degrees=-180).images, images.flip(2, 3))
        assert data.rotate(domain).name == "toy rotated 30°"

    def test_rotation_of_an_oblong_keeps_the_angle(self) -> None:
        image = torch.zeros(1, 1, 21, 41)
        image[0, 0, 10, 10:31] = 1  # a horizontal bar through the centre
        bar = Domain.from_arrays("bar", images=image, splits={"report": [0]})
        down, across = (data.rotate(bar, degrees=45).images[0, 0] > 0.3).nonzero().float().unbind(1)
        slope = ((down - 10) * (across - 20)).sum() / ((across - 20) ** 2).sum()
        assert slope.item() == pytest.approx(-1, abs=0.05)  # rows count downwards

    def test_noise_has_the_mean_and_the_deviation_requested(self) -> None:
        grey = Domain.from_arrays("grey", images=torch.full((40, 3, 28, 28), 0.5), splits={"report": range(40)})
        noisy = data.noise(grey, sigma=0.1, seed=1).images
        assert noisy.mean().item() == pytest.approx(0.5, abs=0.002)
        assert noisy.std().item() == pytest.approx(0.1, abs=0.002)
        assert not torch.equal(noisy[0], noisy[1]) and not torch.equal(noisy[0, 0], noisy[0, 1])

    def test_blur_keeps_the_mean_of_what_is_far_from_the_edge(self) -> None:
        image = torch.zeros(1, 1, 31, 31)
        image[0, 0, 15, 15] = 1
        dot = Domain.from_arrays("dot", images=image, splits={"report": [0]})
        blurred = data.blur(dot, sigma=2.0).images[0, 0]
        assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
        places = torch.arange(31.0) - 15
        assert (blurred.sum(0) * places**2).sum().sqrt().item() == pytest.approx(2, abs=0.06)  # cut at 3 sigma

    def test_contrast_keeps_the_mean(self) -> None:
        domain = small(uint8=False)
        flat = data.contrast(domain, factor=0.0).images
        torch.testing.assert_close(flat, domain.images.mean((1, 2, 3), keepdim=True).expand_as(flat))
        half = data.contrast(domain, factor=0.5).images
        assert half.std().item() < 0.6 * domain.images.std().item()

    def test_pixelation_gives_means_of_squares(self) -> None:
        domain = small(uint8=False)
        coarse = data.pixelate(domain, block=4).images  # 10 x 8: the last row of squares is two pixels high
        torch.testing.assert_close(coarse[0, 0, 0, 0], domain.images[0, 0, :4, :4].mean())
        torch.testing.assert_close(coarse[0, 0, 9, 5], domain.images[0, 0, 8:, 4:8].mean())
        with pytest.raises(DgpruneError, match=r"block must be a whole number; got 2\.5"):
            data.pixelate(domain, block=2.5)  # type: ignore[arg-type]

    def test_colour_is_between_two_colours_of_each_image(self) -> None:
        flat = torch.zeros(2, 3, 4, 4)
        flat[:, :, 0, 0] = 1
        domain = Domain.from_arrays("toy", images=flat, splits={"report": [0, 1]})
        coloured = data.colour(domain, seed=3).images
        assert (coloured[:, :, 1:] == coloured[:, :, 1:2, :1]).all()
        assert (coloured[0] != coloured[1]).any() and (coloured[0, :, 0, 0] != coloured[0, :, 1, 1]).all()
        with pytest.raises(DgpruneError, match=r"3 channels; domain 'toy' has 1"):
            data.colour(small(channels=1))

    def test_shifts_of_shifts(self) -> None:
        twice = data.invert(data.rotate(data.uci_digits(), degrees=15))
        assert twice.name == "uci_digits rotated 15° inverted" and twice.shape == (3, 28, 28)


class TestAugmentation:
    @pytest.mark.parametrize("name", AUGMENTATIONS)
    def test_pure_function_of_images_and_generator(self, name: str) -> None:
        images = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        before, state = images.clone(), torch.get_rng_state()
        one, two = (AUGMENTATIONS[name](images, torch.Generator().manual_seed(7)) for _ in range(2))
        assert torch.equal(one, two) and torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)
        assert one.shape == images.shape and one.dtype == images.dtype and one.min() >= 0 and one.max() <= 1
        assert torch.equal(one, images) == (name == "none")

    def test_invert_colour_has_four_outcomes_of_equal_chance(self) -> None:
        dark = torch.zeros(4000, 3, 1, 1)
        seen = AUGMENTATIONS["invert_colour"](dark, torch.Generator().manual_seed(0)).flatten(1)
        kept, turned = (seen == 0).all(1), (seen == 1).all(1)
        assert kept.float().mean().item() == pytest.approx(0.25, abs=0.03)
        assert turned.float().mean().item() == pytest.approx(0.25, abs=0.03)
        tinted = seen[~kept & ~turned]
        assert tinted.mean().item() == pytest.approx(0.5, abs=0.03) and len(tinted.unique(dim=0)) == len(tinted)

    def test_crop_flip_moves_by_up_to_four_pixels_and_mirrors(self) -> None:
        image = torch.zeros(500, 1, 32, 32)
        image[:, 0, 10, 8] = 1
        moved = AUGMENTATIONS["crop_flip"](image, torch.Generator().manual_seed(0))
        down, across = moved[:, 0].flatten(1).argmax(1) // 32, moved[:, 0].flatten(1).argmax(1) % 32
        assert set(down.tolist()) == set(range(6, 15))
        assert set(across.tolist()) == set(range(4, 13)) | set(range(19, 28))
        assert (moved.flatten(1).sum(1) == 1).all()
