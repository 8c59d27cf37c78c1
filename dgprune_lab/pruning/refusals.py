"""Messages on why filters cannot be removed: which operation, where, what can still be pruned, and what to do."""

from __future__ import annotations

import re
import traceback

from torch import Tensor, nn

from ..core import DgpruneError

_ELSEWHERE = "only layers whose channels do not reach it can be pruned"
_OTHERS = "the other layers can still be pruned"
_SENTENCES: dict[str, str] = {
    "attention": "{where} multiplies feature maps with one another (attention), which mixes their channels; "
    f"{_ELSEWHERE}; hidden units of the linear layers beside it can be pruned with layers='all'",
    "batch": "{where} gets its channels as if they were images (as after x.flatten(0, 1)); "
    f"{_ELSEWHERE}; use a depthwise convolution, with groups equal to the number of channels",
    "breaks": "removing its filters breaks the network's own code: {where} stops at {detail}; "
    f"{_OTHERS}; a number of channels that is hard-coded there, as in split((8, 8), 1), or taken from another tensor "
    "must be computed from the tensor itself, as in chunk(2, 1)",
    "constant": "{where} adds or multiplies it with a tensor whose channels cannot be cut (the network's input, a "
    f"constant, a layer that is refused); {_ELSEWHERE}; register a constant with one value per channel as a buffer, "
    "and pass the input through a convolution first",
    "differs": "without some of its filters the logits differ from those of the masked network by {detail} of the "
    f"difference between two images; {_OTHERS}; something between this layer and {{where}} depends on the number or "
    "the order of its channels (as x.shape[1] in a formula does): compute it without them",
    "function": "the weight of {where} is used by a function, not by calling that layer, so what it computes cannot be "
    f"measured; {_OTHERS}; call the layer itself",
    "grouped": "{where} is a grouped convolution that gets only part of its channels from this layer; "
    f"{_ELSEWHERE}; give it groups=1, or one layer before it",
    "large": "{where} reshapes a map of more than {detail} elements, which is not followed; "
    f"{_ELSEWHERE}; give smaller images, if the network takes them",
    "merged": "{where} merges two axes that both hold channels into one (as after an outer product); "
    f"{_ELSEWHERE}; use a convolution with kernel size 1 in its place",
    "mixed": "{where} joins some of its channels with channels that cannot be cut (of the network's input, of a "
    f"constant, or padding); {_ELSEWHERE}; let a convolution process the input first",
    "neighbours": "{where} is a convolution that runs over neighbouring channels; "
    f"{_ELSEWHERE}; leave it out, or use a squeeze-and-excitation gate in its place",
    "opaque": "{where} computes its weights in each pass from other tensors (as dynamic convolutions do), so its "
    f"filters cannot be cut; {_ELSEWHERE}; use a torch.nn.Conv2d in its place",
    "order": "{where} applies {detail} along the channels, which depends on their order and number; "
    f"{_ELSEWHERE}; apply it to positions, or leave it out",
    "outputs": f"removing its filters changes the number of outputs; {_OTHERS}; let a torch.nn.Linear compute the "
    "network's output from them",
    "over": "{where} takes the {detail} over channels, which depends on how many there are; "
    f"{_ELSEWHERE}; use a convolution with kernel size 1 in its place",
    "own": "{where} uses weights of its own in a function, so what it computes cannot be measured; "
    f"{_OTHERS}; make them a torch.nn.Conv2d or torch.nn.Linear",
    "padded": "{where} adds it to channels that are padded with zeros (a shortcut without weights), whose number is "
    f"hard-coded; {_OTHERS}, for example those within the blocks; use a convolution of kernel size 1 as shortcut",
    "part": "{where} writes it into a part of a larger tensor, which is not followed; "
    f"{_ELSEWHERE}; use torch.cat in place of the assignment",
    "picked": "{where} picks channels by index; "
    f"{_ELSEWHERE}; use chunk, flip or a convolution with kernel size 1 in its place",
    "quantised": "{where} is prepared for quantisation, so that it computes its weights in each pass; "
    f"{_ELSEWHERE}; prune first, and prepare the pruned network",
    "recurrent": "{where} is a recurrent layer, whose input cannot be cut; the layers before the one that feeds it can "
    "be pruned; put a torch.nn.Linear or a convolution before it to make this layer one of them",
    "shared": "{where} shares the parameter {detail} with another layer, so what each contributes is not known; "
    f"{_OTHERS}; call one layer twice, or give each its own weight",
    "standardised": "{where} normalises its weight across input channels in each pass, so removing one would change "
    f"those of the others; {_ELSEWHERE}; store the normalised weight in a torch.nn.Conv2d, with the same logits",
    "statistics": "{where} takes statistics across channels, so a removed filter would change the others; "
    f"{_ELSEWHERE}; torch.nn.BatchNorm2d in its place takes them channel by channel",
    "tied": "{where} ties all {detail} filters together, so that only the whole layer could be removed; "
    f"{_OTHERS}; without the shuffle, split or grouped convolution there, single filters could be removed",
    "transposed": f"{{where}} is a grouped transposed convolution, which cannot be cut; {_ELSEWHERE}; give it groups=1",
    "unknown": "{where} applies {detail}, which is not known to keep channels apart; "
    f"{_ELSEWHERE}; write it with elementwise operations, pooling or convolutions",
    "unproven": "its removal was not verified within {detail}, because layers around it cannot be removed; "
    f"{_OTHERS}; give smaller images, if the network takes them",
    "unread": "no convolution or linear layer reads its filters one by one (they are summed up, or are the network's "
    f"output); {_OTHERS}; let a convolution or linear layer read them",
    "window": "{where} applies {detail} over neighbouring channels; "
    f"{_ELSEWHERE}; leave it out: with BatchNorm a network hardly needs it",
    "written": f"{{where}} writes into its channels by index; {_ELSEWHERE}; use torch.cat in place of the assignment",
}
RANDOM = (
    "in eval mode this network gives other logits each time it sees the same images, so nothing about it can be "
    "compared: dropout that is always active does this (in torch.nn.functional.dropout write training=self.training; "
    "register nn.Dropout layers as attributes or in an nn.ModuleList)."
)
_SHAPES = re.compile(r"shape|size|dimension|channel|stride|broadcast|index|expected|invalid|element", re.IGNORECASE)


def refusal(kind: str, *, where: str = "", detail: str = "") -> str:
    """Return why filters cannot be removed, and what to do, without a full stop at the end.

    Args:
        kind: the cause, a key of the table above.
        where: name and class of the layer whose forward causes it.
        detail: what else the message names: an operation, a number, a line of code.
    """
    return _SENTENCES[kind].format(where=where, detail=detail)


def layer_of(error: Exception, model: nn.Module) -> str:
    """Return the name of the innermost layer whose code an error passed through; "" for the network itself."""
    names = {module: name for name, module in model.named_modules()}
    frames = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    inside = [names[owner] for owner in frames if isinstance(owner, nn.Module) and owner in names]
    return inside[-1] if inside else ""


def layer_label(name: str, model: nn.Module) -> str:
    """Return a layer's name and class as text; for the network itself, "the forward of" and its class."""
    kind = type(model.get_submodule(name)).__name__
    return f"{name} ({kind})" if name else f"the forward of {kind}"


def code_line(error: Exception) -> str:
    """Return the innermost line of code, outside of torch and this package, that an error passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if "/torch/" not in frame.filename and "dgprune_lab" not in frame.filename]
    if not outside:
        return "a layer of torch"
    frame = outside[-1]
    return f"line {frame.lineno} of {frame.filename.rpartition('/')[2]}, {frame.line or ''}".rstrip(", ")


def input_error(error: Exception, model: nn.Module, *, images: Tensor) -> DgpruneError:
    """Return the error for a network that does not take images: where it stopped, and what to do.

    The message of the exception is left out if it only compares shapes.
    """
    message = (str(error).splitlines() or [""])[0]
    about_shapes = isinstance(error, (RuntimeError, IndexError, ValueError)) and _SHAPES.search(message)
    cause = type(error).__name__ + (f": {message}" if message and not about_shapes else "")
    types = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()})
    where = layer_label(layer_of(error, model), model)
    if isinstance(error, NotImplementedError) and '"forward"' in str(error):
        text = f"the network cannot be called ({cause}); wrap it in a module whose forward takes (B, C, H, W) images "
        text += "and returns logits."
    elif isinstance(error, TypeError) and "argument" in str(error):
        text = f"the network cannot be called with images alone ({cause}); wrap it in a module whose forward takes "
        text += "(B, C, H, W) images and gives it what else it needs."
    else:
        size = " x ".join(map(str, images.shape[1:]))
        text = f"the network does not take images of {size} ({where} stops at {code_line(error)}: {cause}); "
        text += "give images of the size and number of channels it was built for."
        if len(types) > 1:
            text = f"the network stops at {where} ({cause}), and its weights are {' and '.join(types)}: give them one "
            text += "type, copy.deepcopy(model).float()."
    return DgpruneError(text)
