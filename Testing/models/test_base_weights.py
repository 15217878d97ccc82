"""Weights files: read only when whole and harmless, loaded only when they fit."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading

import pytest
import safetensors.torch
import torch
from torch import nn

from SAMMixLib.errors import Cancelled, SAMMixError
from SAMMixLib.files import sha256_of
from SAMMixLib.models import base_weights
from SAMMixLib.models.base_weights import PUBLIC_FILES, PublicFile, download, load_tensors
from SAMMixLib.networks.strict import load_strictly

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}


@pytest.fixture
def pth(tmp_path):
    path = tmp_path / "tiny.pth"
    torch.save(STATE, path)
    return path


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * (base_weights.CHUNK + 1))
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tensors_come_back(tmp_path, suffix):
    path = tmp_path / f"tiny{suffix}"
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(STATE, path)
    for sha256 in (None, sha256_of(path), sha256_of(path).upper()):
        state = load_tensors(path, sha256)
        assert state.keys() == STATE.keys()
        assert all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_another_hash_is_refused(pth):
    with pytest.raises(SAMMixError, match="get it again") as error:
        load_tensors(pth, "0" * 64)
    message = one_line(error)
    assert str(pth) in message and sha256_of(pth) in message and "0" * 64 in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SAMMixError, match=r"absent\.pth: cannot be read"):
        load_tensors(tmp_path / "absent.pth")


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(SAMMixError, match="not a weights file that is safe to read") as error:
        load_tensors(tmp_path / "bomb.pth")
    one_line(error)
    assert "boom" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "empty.safetensors", "text.pth"])
def test_damaged_files_are_refused(tmp_path, pth, name):
    whole = pth.read_bytes() if name.endswith(".pth") else safetensors.torch.save(STATE)
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"<html>not found</html>"}[name.split(".")[0]]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SAMMixError, match=name) as error:
        load_tensors(tmp_path / name)
    one_line(error)


@pytest.mark.parametrize("content", [{"model": STATE}, [torch.zeros(1)]])
def test_a_whole_checkpoint_is_no_table_of_tensors(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(SAMMixError, match="holds more than a table of tensors; save the state dict alone"):
        load_tensors(tmp_path / "checkpoint.pth")


def test_load_strictly_copies():
    layer = nn.Linear(3, 2)
    load_strictly(layer, STATE, "tiny")
    assert torch.equal(layer.weight, STATE["weight"])
    layer.weight.data.zero_()
    assert STATE["weight"].any()


def test_misfits_are_listed_and_nothing_is_loaded():
    layers = nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])
    before = layers[0].bias.clone()
    state = {"0.bias": torch.ones(3), "0.weight": torch.ones(3, 4), "stray": torch.zeros(1)}
    with pytest.raises(SAMMixError) as error:
        load_strictly(layers, state, "tiny.pth")
    assert one_line(error) == (
        "tiny.pth: the weights do not fit this network (6 missing: 1.weight, 1.bias, 2.weight, ...; "
        "1 unexpected: stray; 1 of another shape: 0.weight [3, 4] for [3, 3]); give the weights made for it"
    )
    assert torch.equal(layers[0].bias, before)


def test_public_files_are_well_formed():
    for public in PUBLIC_FILES.values():
        assert public.url.startswith("https://") and public.name.endswith(".pth")
        assert len(bytes.fromhex(public.sha256)) == 32


@pytest.fixture
def server(tmp_path):
    """A local web server of one folder: its address."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=tmp_path / "web")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture
def published(tmp_path, server, pth, monkeypatch):
    """`tiny` is published on the local server."""
    (tmp_path / "web" / "tiny.pth").write_bytes(pth.read_bytes())
    public = PublicFile(f"{server}/tiny.pth", sha256_of(pth), 1)
    monkeypatch.setitem(PUBLIC_FILES, "tiny", public)
    return public


def test_download(tmp_path, published):
    seen = []
    folder = tmp_path / "new" / "models"
    path = download("tiny", folder, consent=True, progress=lambda *step: seen.append(step))
    assert path == folder / "tiny.pth"
    assert load_tensors(path, published.sha256).keys() == STATE.keys()
    size = path.stat().st_size
    assert seen[-1] == ("download tiny.pth", size, size)
    assert [file.name for file in folder.iterdir()] == ["tiny.pth"]


def test_a_file_already_there_needs_no_consent_and_no_network(tmp_path, published, pth):
    (tmp_path / "web" / "tiny.pth").unlink()
    assert download("tiny", tmp_path, consent=False) == pth


def test_no_download_without_consent(tmp_path, published):
    with pytest.raises(SAMMixError, match=r"without consent; agree to get 1 MB from http://.*/tiny\.pth"):
        download("tiny", tmp_path / "models", consent=False)
    assert not (tmp_path / "models").exists()


def test_failed_downloads_leave_nothing(tmp_path, published, monkeypatch):
    folder = tmp_path / "models"

    def cancel(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        download("tiny", folder, consent=True, progress=cancel)

    (tmp_path / "web" / "tiny.pth").write_bytes(b"another file")
    with pytest.raises(SAMMixError, match=r"SHA-256 is .* and should be") as error:
        download("tiny", folder, consent=True)
    one_line(error)

    (tmp_path / "web" / "tiny.pth").unlink()
    with pytest.raises(SAMMixError, match="cannot be downloaded"):
        download("tiny", folder, consent=True)
    assert not list(folder.iterdir())

    with pytest.raises(SAMMixError, match="nothing: no public weights under this name; known are sam_vit_b"):
        download("nothing", folder, consent=True)
