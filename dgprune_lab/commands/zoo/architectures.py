"""The architectures that the zoo tries: names, families, and how each is built with random weights."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

from torch import nn

from ...core import DgpruneError
from ...models import networks

Build = Callable[[], nn.Module]

SIZES = (64, 128, 224, 256)
"""Sizes in pixels that are tried in turn if none is given; the first that the network takes is used."""

# One or two of each family, the smallest in torchvision and timm.
_TORCHVISION = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mobilenet_v2 mobilenet_v3_small mobilenet_v3_large regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d
shufflenet_v2_x0_5 squeezenet1_0 swin_t swin_v2_t vgg11 vgg11_bn vit_b_32 wide_resnet50_2
"""
_TIMM = """
resnet10t resnet26d resnetblur18 resnext26ts seresnet18 seresnext26t_32x4d ecaresnet26t ecaresnext26t_32x4d resnest14d
skresnet18 res2net50_14w_8s res2next50 legacy_seresnet18 resnetv2_18 resnetv2_50x1_bit densenet121 densenetblur121d
vgg11 vgg11_bn inception_v3 inception_v4 inception_resnet_v2 legacy_xception xception41 nasnetalarge pnasnet5large
dpn48b dpn68 dla46x_c dla60_res2net hrnet_w18_small mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small
efficientnet_b0 efficientnet_lite0 efficientnet_es efficientnet_cc_b0_4e efficientnetv2_rw_t tf_efficientnetv2_b0
efficientnet_b1_pruned mixnet_s mnasnet_small semnasnet_050 fbnetc_100 fbnetv3_b spnasnet_100 ghostnet_050
ghostnetv2_100 ghostnetv3_050 tinynet_e rexnet_100 rexnetr_100 regnetx_002 regnety_002 regnetz_005 regnetz_b16 repvgg_a0
mobileone_s0 repghostnet_050 cspresnet50 cspdarknet53 darknet17 cs3darknet_s cs3sedarknet_x cspnext_tiny selecsls42b
ese_vovnet19b_dw eca_vovnet39b convnext_atto convnextv2_atto convmixer_1024_20_ks9_p14 dm_nfnet_f0 nf_regnet_b0
nf_resnet26 eca_nfnet_l0 hardcorenas_a lcnet_035 lcnetv2_small inception_next_atto repvit_m0_9 starnet_s050 hgnet_tiny
hgnetv2_b0 gcresnet33ts gernet_s bat_resnext26ts tresnet_m rdnet_tiny fasternet_t0
edgenext_xx_small mobilevit_xxs mobilevitv2_050 mobilenetv4_hybrid_medium poolformer_s12 efficientformer_l1
efficientformerv2_s0 fastvit_t8 lambda_resnet26t halonet26t botnet26t_256 levit_128s swin_tiny_patch4_window7_224
vit_tiny_patch16_224 deit_tiny_patch16_224 mixer_s32_224 coat_lite_tiny mambaout_femto visformer_tiny pvt_v2_b0
efficientvit_b0 coatnet_pico_rw_224
"""
# Families whose blocks attend, mix or shift tokens, so that convolutions are not most of the network.
_MIXED = """
beit byoanet cait coat convit cpubone crossvit davit deepseek_vit deit edgenext efficientformer efficientformer_v2
efficientvim efficientvit_mit efficientvit_msra eva fastvit focalnet gcvit hiera iformer levit lowformer mambaout
maxvit maxxvit metaformer mlp_mixer mobilevit mvitv2 naflexvit nest nextvit pit pvt_v2 sequencer shvit swiftformer
swin_transformer swin_transformer_v2 swin_transformer_v2_cr tiny_vit tnt twins visformer vision_transformer
vision_transformer_hybrid vision_transformer_relpos vitamin volo xcit
"""
_PACKAGE = {"digits_net": 28, "lenet": 28, "vgg11_bn_32": 32, "resnet18_32": 32, "resnet20": 32}  # with their sizes


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture.

    Attributes:
        name: name of the architecture in its library.
        family: the module of the library that defines it.
        source: the library: "dgprune_lab", "torchvision" or "timm".
        build: returns the network with random weights; it must be picklable, as a child process calls it.
        sizes: heights and widths in pixels to try in turn.
        convolutional: whether it counts among the convolutional classifiers.
    """

    name: str
    family: str
    source: str
    build: Build
    sizes: tuple[int, ...] = SIZES
    convolutional: bool = True

    @property
    def key(self) -> str:
        """Name with library, since several libraries have a "resnet18"."""
        return f"{self.source}/{self.name}"


def architectures(
    *, timm: bool = False, names: Sequence[str] = (), size: int | None = None
) -> tuple[Architecture, ...]:
    """Return the architectures to try: the package's own and torchvision's, or timm's; one or two of each family.

    Args:
        timm: return timm's architectures instead; timm must be installed.
        names: patterns such as "resnet*"; with any, all architectures that match one are returned.
        size: height and width of the images in pixels; None tries `SIZES` in turn.

    Raises:
        DgpruneError: timm is not installed; a pattern that matches nothing.
    """
    if timm and importlib.util.find_spec("timm") is None:
        raise DgpruneError("timm is not installed. Run `pip install timm`, or leave out --timm.")
    candidates = _timm_entries(names) if timm else [*_package_entries(names), *_torchvision_entries(names)]
    for pattern in names:
        if not any(fnmatchcase(each.name, pattern) for each in candidates):
            other = "leave out --timm for torchvision's" if timm else "add --timm for timm's"
            raise DgpruneError(f"names: no architecture matches {pattern!r}; use * for any characters, or {other}.")
    if size is None:
        return tuple(candidates)
    return tuple(replace(each, sizes=(size,)) for each in candidates)


def _select(every: Iterable[str], names: Sequence[str], *, few: str) -> list[str]:
    """Return the names that match a pattern, in the library's order; without patterns, those in `few`."""
    known = list(every)
    if names:
        return [name for name in known if any(fnmatchcase(name, pattern) for pattern in names)]
    return [name for name in few.split() if name in set(known)]


def _package_entries(names: Sequence[str]) -> list[Architecture]:
    ours = partial(Architecture, family="networks", source="dgprune_lab")
    return [
        ours(name=name, build=getattr(networks, name), sizes=(_PACKAGE[name],))
        for name in _select(_PACKAGE, names, few=" ".join(_PACKAGE))
    ]


def _torchvision_entries(names: Sequence[str]) -> list[Architecture]:
    from torchvision import models

    entries = []
    for name in _select(models.list_models(module=models), names, few=_TORCHVISION):
        family = models.get_model_builder(name).__module__.rpartition(".")[2]
        # Without this option these two warn that their default will change.
        options = {"init_weights": False} if family in ("googlenet", "inception") else {}
        entries.append(
            Architecture(
                name=name,
                family=family,
                source="torchvision",
                build=partial(models.get_model, name, weights=None, **options),
                convolutional=family not in _MIXED.split(),
            )
        )
    return entries


def _timm_entries(names: Sequence[str]) -> list[Architecture]:
    # Not a dependency, so a type checker may not find it.
    timm = importlib.import_module("timm")

    entries = []
    for name in _select(timm.list_models(), names, few=_TIMM):
        family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
        mixed = family in _MIXED.split() or name.startswith("mobilenetv4_hybrid")
        config = timm.get_pretrained_cfg(name)
        own = int(config.input_size[-1]) if config is not None else SIZES[-1]
        fixed = config is not None and config.fixed_input_size
        entries.append(
            Architecture(
                name=name,
                family=family,
                source="timm",
                build=partial(timm.create_model, name, pretrained=False),
                sizes=(own,) if fixed else tuple(sorted({*(s for s in SIZES if s < own), own})),
                convolutional=not mixed,
            )
        )
    return entries
