"""How a stage is made fast: threads, memory, the compiler, and what the machine can do at most.

Nothing here changes what is computed. A compiled layer rounds at other places than an uncompiled
one, so a run is compiled from its first step to its last or not at all: the choice depends on the
recipe, the model and the plan alone, never on a measured time.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import library as operators
from torch import nn

from medexpert.model.staging import cache_root
from medexpert.recipe_train import Stage
from medexpert.records import UserError
from medexpert.train.objectives import Learner, row_softmax, unwrapped
from medexpert.train.parallel import layers

REPAID = 20e15
"""Operations of a stage on a CPU from which compiling is repaid: about 40 minutes of two cores, of
which it saves a tenth or more, for a compile of one to two minutes (once a machine: it is kept)."""
REPAID_CUDA = 2e18
"""The same on a GPU; not measured, chosen as two to three minutes of one H100."""
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # <malloc.h>


def set_up_threads(threads: int) -> None:
    """CPU threads of torch (0: all cores), and freed memory kept for the next step.

    By default the C library returns every large block at once, and the kernel clears its pages
    again when the next layer asks for it.
    """
    if threads:
        torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        try:
            library = ctypes.CDLL("libc.so.6")
        except OSError:  # another C library: its own habits
            return
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


@functools.cache
def measured_matmul_rate(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> float:
    """FLOP/s of a square product, 2,048 wide on a CPU and 8,192 on a GPU: the median of nine."""
    where = torch.device(device)
    size = 2048 if where.type == "cpu" else 8192
    generator = torch.Generator(device=where).manual_seed(0)
    left, right = (
        torch.randn(size, size, device=where, generator=generator).to(dtype) for _ in range(2)
    )
    wait: Callable[[], Any] = torch.cuda.synchronize if where.type == "cuda" else _nothing
    taken = []
    for _ in range(11):
        wait()
        started = time.perf_counter()
        left @ right
        wait()
        taken.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(taken[2:])


def _nothing() -> None:
    return None


def compiler_missing(device: torch.device) -> str:
    """Why nothing can be compiled here, "" where it can."""
    if device.type == "cpu":
        found = _on_the_path(os.environ.get("CXX"), "g++", "clang++")
        return "" if found else "there is no C++ compiler (g++ or clang++)"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "triton is not installed"
    # triton compiles, with Python's own headers, the C code that starts its kernels. Containers
    # that are made to run torch often have neither.
    if not _on_the_path(os.environ.get("CC"), "gcc", "clang"):
        return "there is no C compiler (gcc or clang), which triton needs"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "Python's headers (Python.h) are missing, which triton needs"
    return ""


def _on_the_path(named: str | None, *usual: str) -> bool:
    """Whether the compiler that a variable names, or one of the usual ones, is there."""
    names = [*(named or "").split()[:1], *usual]
    return any(shutil.which(name) for name in names)


def prepare(
    learner: Learner,
    settings: Stage,
    plan_facts: Mapping[str, float],
    device: torch.device | None = None,
) -> str:
    """Compile the decoder's layers and the softmax of the loss where it pays; what was decided.

    `plan_facts`: `tokens` of the whole stage, `flops` a token, `processes` (default 1); `device`:
    where it will train (default: where the weights are). One layer is compiled and used for all of
    them. `learner.width` is set to the width that rows should be padded to, since every other width
    would be compiled anew. On a CPU, dropout layers are replaced by :class:`Dropout` in any case.

    Raises UserError when compile = "on" cannot be had.
    """
    device = device or next(learner.model.parameters()).device
    if device.type == "cpu":
        _replace_dropout(learner.model)
    if settings.compile == "off":
        return "compile off: by the recipe"
    why = _in_the_way(learner, settings, device)
    if why:
        if settings.compile == "on":
            raise UserError(f"compile = on, but {why}", allowed="compile = auto or off")
        return f"compile off: {why}"
    if settings.compile == "auto" and plan_facts.get("processes", 1.0) > 1:
        return "compile off: not tested with several processes (compile = on does it anyway)"
    total = plan_facts.get("tokens", 0.0) * plan_facts.get("flops", 0.0)
    enough = REPAID if device.type == "cpu" else REPAID_CUDA
    if settings.compile == "auto" and total < enough:
        return f"compile off: {total:.1e} operations do not repay it (compile = on does it anyway)"
    kept = _keep_compiled()
    for layer in layers(learner.model):
        layer.forward = _CompiledLayer(layer)
    learner.softmax = _compiled(row_softmax, dynamic=True)
    learner.width = settings.sequence_length
    return f"compile on: the first step takes a minute or two, once (kept in {kept})"


def _keep_compiled() -> str:
    """The folder where compiled code stays from run to run: the variable's, else in our cache.

    torch sets the variable to a temporary folder by itself, which a restart of the machine empties.
    """
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")
    if not given or given.startswith(os.path.join(tempfile.gettempdir(), "torchinductor_")):
        given = str(cache_root() / "compiled")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = given
    return given


def _in_the_way(learner: Learner, settings: Stage, device: torch.device) -> str:
    """What forbids compiling, "" for nothing."""
    if settings.method == "cpoly":
        return "C-Poly's tasks change from row to row"
    if settings.method == "qlora":
        return "4-bit weights are unpacked by code that cannot be compiled"
    kinds = {type(layer) for layer in layers(learner.model)}
    if len(kinds) > 2:
        return f"the model has {len(kinds)} kinds of layers"
    if any("forward" in vars(layer) for layer in layers(learner.model)):
        return f"the layers of {type(unwrapped(learner.model)).__name__} are wrapped already"
    return compiler_missing(device)


class _CompiledLayer:
    """`forward` of a layer: compiled while it trains, plain otherwise (evaluation, other shapes).

    Holds its layer and looks up the compiled function, so that a deep copy of the model works.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        plain: Any = type(self.layer).forward
        trains = self.layer.training and torch.is_grad_enabled()
        return (_compiled(plain) if trains else plain)(self.layer, *args, **kwargs)


@functools.cache
def _compiled(function: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(function, dynamic=dynamic)
    return compiled


@operators.custom_op("medexpert::keep", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def keep(like: torch.Tensor, dropped: int) -> torch.Tensor:
    """Bool of `like`'s shape, each False with probability `dropped` / 65,536; by torch's seed."""
    count = like.numel()
    drawn = torch.empty((count + 3) // 4, dtype=torch.int64, device=like.device)
    # All 64 bits: four numbers of 16 bits each, -32,768 the least.
    drawn.random_(-(2**63), None)
    return (drawn.view(torch.int16)[:count] >= dropped - 32768).view(like.shape)


@keep.register_fake
def _(like: torch.Tensor, dropped: int) -> torch.Tensor:
    return like.new_empty(like.shape, dtype=torch.bool)


class Dropout(nn.Dropout):
    """Dropout whose draws cost little on a CPU: a fourth of a random number for each element.

    The probability is rounded to 1/65,536, and what is kept is scaled by its exact inverse.
    """

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        dropped = round(self.p * 65536)
        if not self.training or not dropped:
            return given
        if dropped == 65536:
            return torch.zeros_like(given)
        kept: torch.Tensor = keep(given, dropped)
        return given * kept * (65536 / (65536 - dropped))


def _replace_dropout(model: nn.Module) -> None:
    """Put :class:`Dropout` in the place of every nn.Dropout, those of adapters among them."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout and not child.inplace:
                module._modules[name] = Dropout(child.p).train(child.training)
