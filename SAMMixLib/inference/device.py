"""Where the networks run, in which precision, and who is told how far they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch

from SAMMixLib.errors import SAMMixError
from SAMMixLib.progress import Progress, silent

_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|bad_alloc|(can't|cannot|failed to) allocate"
    r"|could not create a (primitive|memory)",  # oneDNN
    re.IGNORECASE,
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """What travels with every long piece of work.

    Args:
        device: where the networks run.
        dtype: their precision. A trainer's weights stay float32, and it runs under :meth:`autocast`.
        progress: is told of each batch; it may raise :class:`~SAMMixLib.errors.Cancelled`.
        batch_size: slices that a network sees at once, where nothing is learned.

    Example:
        >>> Runtime().precision
        'float32'
    """

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    progress: Progress = silent
    batch_size: int = 8

    @classmethod
    def choose(cls, device: str = "auto", dtype: str = "auto", batch_size: int = 8) -> Runtime:
        """The device and the precision of these names, see :func:`choose_device` and :func:`choose_dtype`.

        Raises:
            SAMMixError: the wanted device is not there.
        """
        chosen, _ = choose_device(device)
        return cls(chosen, choose_dtype(chosen, dtype), batch_size=batch_size)

    def told(self, progress: Progress) -> Runtime:
        """The same with another `progress`."""
        return replace(self, progress=progress)

    @property
    def sam_batch_size(self) -> int:
        """Slices that SAM sees at once. On a CPU more than two save no time, and take 0.4 GB each."""
        return min(self.batch_size, 2) if self.device.type == "cpu" else self.batch_size

    @property
    def precision(self) -> str:
        """The dtype's name."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> torch.autocast:
        """A context in which layers that may run in `dtype` do; with float32 it does nothing."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def choose_device(wanted: str = "auto") -> tuple[torch.device, str]:
    """The device and, in a few words, why: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        SAMMixError: the wanted device is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        wanted = "cuda" if cuda else "mps" if mps else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise SAMMixError(f"--device {wanted}: unknown; use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and not (cuda and (device.index or 0) < torch.cuda.device_count()):
        raise SAMMixError(
            f"--device {wanted}: no such CUDA device here; use --device cpu, or install a CUDA build of torch"
        )
    if device.type == "mps" and not mps:
        raise SAMMixError("--device mps: Apple's GPU is not available here; use --device cpu")
    if device.type == "cuda":
        return device, torch.cuda.get_device_name(device)
    return device, "Apple GPU" if device.type == "mps" else f"{_cpu()} (no GPU in use)"


def available_devices() -> list[dict[str, str]]:
    """What there is, the one that ``auto`` takes first: ``name`` for :func:`choose_device`, ``text`` for people."""
    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gigabytes = torch.cuda.get_device_properties(index).total_memory / 2**30
            found.append({"name": f"cuda:{index}", "text": f"{torch.cuda.get_device_name(index)}, {gigabytes:.0f} GB"})
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "text": "Apple GPU"})
    return [*found, {"name": "cpu", "text": _cpu()}]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory did not suffice; on the CPU torch and oneDNN say so in words only."""
    if isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)):
        return True
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def choose_dtype(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """``auto`` takes bfloat16 where the hardware multiplies in it, else float32."""
    if wanted != "auto":
        return DTYPES[wanted]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _cpu_multiplies_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # torch has no public question for this; where the private one is missing, float32 is always right.
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question, bool)() for question in questions)


def _cpu() -> str:
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"
