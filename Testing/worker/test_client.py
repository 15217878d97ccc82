"""The worker's client against small servers that misbehave in one way each."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worker_helpers import answer, collect, is_running, posix, said_hello, wait_for

from SAMMixLib.errors import SAMMixError
from SAMMixLib.worker import client as client_module
from SAMMixLib.worker.client import WorkerClient
from SAMMixLib.worker.folders import LOCK, YOUNG_SECONDS, PrivateFolder, sweep
from SAMMixLib.worker.protocol import decode, encode

PRELUDE = """
import json, os, signal, subprocess, sys, time
def say(**message):
    sys.stdout.write(json.dumps(message) + "\\n")
    sys.stdout.flush()
def hear():
    line = sys.stdin.readline()
    if not line or json.loads(line)["type"] == "quit":
        os._exit(0)
    return json.loads(line)
def hello():
    say(type="hello", pid=os.getpid(), versions={}, devices=[])
"""
ECHO = "hello()\nwhile True:\n    say(type='result', id=hear()['id'])\n"


@pytest.fixture
def serve(tmp_path):
    """Starts a client whose server is a piece of Python."""
    with contextlib.ExitStack() as stack:

        def start(body: str, prefix: tuple[str, ...] = ()) -> WorkerClient:
            client = WorkerClient([*prefix, sys.executable, "-c", PRELUDE + body], folder=tmp_path)
            stack.callback(client.close)
            client.start()
            return client

        yield start


def test_messages_are_lines_of_strict_json():
    assert decode(encode({"type": "log", "text": "a\nb\u2028 é"})) == {"type": "log", "text": "a\nb\u2028 é"}
    assert encode({"type": "log", "text": "a\nb"}).count(b"\n") == 1
    assert [decode(line) for line in (b"", b"{", b"[1]", b"{}", b'{"type": 1}', b"\xff\xfe", b"[" * 100000)] == [
        None
    ] * 7
    with pytest.raises(ValueError):
        encode({"type": "result", "p": float("nan")})


def test_a_request_is_answered_under_its_id(serve):
    client = serve("hello(); say(type='heartbeat'); q = hear(); say(type='progress', id=q['id'], stage=q['type'],"
                   "done=1, total=2); say(type='result', id=q['id'], got=q['slices']); hear()")  # fmt: skip
    assert client.alive and not client.idle
    request = client.request("segment", slices=[1, 2])
    messages = collect(client, lambda m: m["type"] == "result")
    assert [m["type"] for m in messages] == ["hello", "progress", "result"]
    assert messages[-1] == {"type": "result", "id": request, "got": [1, 2]}
    assert client.idle and client.pid == messages[0]["pid"]


def test_the_folder_is_private_and_goes_with_the_client(serve, tmp_path):
    one, other = serve(ECHO), serve(ECHO)
    assert one.folder != other.folder
    if os.name != "nt":
        assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700 and stat.S_IMODE(one.log_path.stat().st_mode) == 0o600
    collect(one, said_hello)
    collect(other, said_hello)
    (one.folder / "volume.nrrd").write_bytes(b"CT")
    started = time.monotonic()
    pid = one.pid
    one.close()
    assert time.monotonic() - started < 2 and not is_running(pid)
    assert sorted(tmp_path.iterdir()) == sorted([other.folder, other.log_path])
    assert answer(other, other.request("load"))["type"] == "result"


@posix
def test_a_killed_worker_is_a_crash_and_the_next_run_works(serve):
    client = serve(ECHO.replace("say(type='result', id=hear()['id'])",
        "q = hear(); print('last words', file=sys.stderr); os.kill(os.getpid(), 9) if q['type'] == 'die'"
        " else say(type='result', id=q['id'])"))  # fmt: skip
    folder = client.folder
    first, second = client.request("die"), client.request("load")
    errors = [m for m in collect(client, lambda m: m.get("id") == second) if m["type"] == "error"]
    assert [(m["id"], m["kind"]) for m in errors] == [(first, "crash"), (second, "crash")]
    assert "killed" in errors[0]["message"] and "\n" not in errors[0]["message"]
    assert "last words" in Path(errors[0]["log"]).read_text()
    assert not client.alive and not client.idle and client.poll() == []
    client.start()
    assert answer(client, client.request("load"))["type"] == "result" and client.folder == folder
    client.close()
    assert not folder.exists() and Path(errors[0]["log"]).is_file()  # for the user to read


@pytest.mark.parametrize(
    "body, expected",
    [
        ("sys.exit(3)", ("crash", "exit status 3")),
        ("hello(); sys.exit(4)", ("crash", "exit status 4")),
        ("hello(); hear(); os.close(1); time.sleep(60)", ("crash", "closed its pipe")),
        (
            "say(type='error', id=None, kind='internal', message='no torch', log=''); sys.exit(1)",
            ("internal", "no torch"),
        ),
        pytest.param("hello(); hear(); os.kill(os.getpid(), 11)", ("crash", "signal 11"), marks=posix),
    ],
)
def test_every_end_of_the_process_is_reported(serve, body, expected):
    client = serve(body)
    error = answer(client, client.request("load"))
    assert error["kind"] == expected[0] and expected[1] in error["message"]
    assert wait_for(lambda: not client.alive)


@posix
def test_two_clients_do_not_disturb_each_other(serve):
    one, other = serve(ECHO), serve(ECHO)
    collect(one, said_hello)
    collect(other, said_hello)
    os.kill(one.pid, signal.SIGKILL)
    assert answer(one, None)["kind"] == "crash"
    one.close()
    assert other.folder.is_dir() and answer(other, other.request("load"))["type"] == "result"


def test_an_idle_worker_that_dies_is_reported_once(serve):
    client = serve("hello(); sys.exit(5)")
    assert answer(client, None)["kind"] == "crash" and client.poll() == []


@posix
def test_the_systems_kill_for_want_of_memory_is_told_apart(serve, monkeypatch):
    kills = iter([7, 8])
    monkeypatch.setattr(client_module, "_oom_kills", lambda: next(kills))
    client = serve("hello(); hear(); os.kill(os.getpid(), 9)")
    error = answer(client, client.request("segment"))
    assert error["kind"] == "memory" and "emory" in error["message"]


def test_what_is_no_message_becomes_a_log_line(serve):
    client = serve("hello(); q = hear(); print('a library prints'); sys.stdout.buffer.write(b'\\xff\\n{\"id\": 1}\\n');"
                   "sys.stdout.flush(); print('x' * 100000); say(type='result', id=q['id']); hear()")  # fmt: skip
    request = client.request("load")
    messages = collect(client, lambda m: m["type"] == "result")
    logs = [m["text"] for m in messages if m["type"] == "log"]
    assert logs == ["a library prints", "\ufffd", '{"id": 1}', "x" * 1000] and messages[-1]["id"] == request


def test_answers_to_nobodys_request_are_dropped(serve):
    client = serve("hello(); q = hear(); say(type='result', id=99); say(type='result', id=q['id']); hear()")
    request = client.request("load")
    assert [m.get("id") for m in collect(client, lambda m: m.get("id") == request)] == [None, request]


def test_a_silent_worker_times_out(serve, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.4)
    client = serve("hello(); time.sleep(60)")
    collect(client, said_hello)
    pid = client.pid
    error = answer(client, client.request("segment"), 3)
    assert error["kind"] == "timeout" and not client.alive and wait_for(lambda: not is_running(pid))


def test_no_hello_times_out(serve, monkeypatch):
    monkeypatch.setattr(client_module, "START_SECONDS", 0.4)
    assert answer(serve("time.sleep(60)"), None, 3)["kind"] == "timeout"


def test_a_beating_heart_without_progress_times_out(serve, monkeypatch):
    monkeypatch.setitem(client_module.PATIENCE_SECONDS, "load", 0.5)
    beat = "say(type='heartbeat'); time.sleep(0.05)"
    step = "say(type='progress', id=q['id'], stage='s', done=n, total=20)"
    body = f"hello(); q = hear()\nfor n in range(20):\n    {step}; {beat}\n"
    client = serve(f"{body}while True:\n    {beat}\n")
    started = time.monotonic()
    error = answer(client, client.request("load"), 5)
    assert error["kind"] == "timeout" and time.monotonic() - started > 1.4  # 20 steps first


def test_a_caller_that_was_held_up_is_no_false_alarm(serve, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.6)
    monkeypatch.setattr(client_module, "OBSERVED_SECONDS", 0.2)
    client = serve("hello(); q = hear(); time.sleep(1.2); say(type='result', id=q['id']); hear()")
    collect(client, said_hello)
    request = client.request("load")
    time.sleep(1.0)  # nobody polls, as while a modal dialog is open
    assert answer(client, request)["type"] == "result"


def test_cancel_is_obeyed(serve):
    client = serve("hello(); q = hear(); c = hear(); assert c == {'type': 'cancel', 'id': q['id']};"
                   "say(type='error', id=q['id'], kind='cancelled', message='Cancelled.', log=''); hear()")  # fmt: skip
    request = client.request("segment")
    client.cancel(request)
    client.cancel(request)
    assert answer(client, request)["kind"] == "cancelled" and client.idle


def test_a_worker_that_does_not_obey_is_killed_within_two_seconds(serve):
    client = serve("hello(); hear()\nwhile True:\n    say(type='heartbeat'); time.sleep(0.1)\n")
    collect(client, said_hello)
    pid, request = client.pid, client.request("segment")
    started = time.monotonic()
    client.cancel(request)
    assert answer(client, request, 3)["kind"] == "cancelled"
    assert time.monotonic() - started < 2.5 and not client.alive and wait_for(lambda: not is_running(pid))


LAUNCHER = (sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))")


@posix
def test_behind_a_launcher_the_worker_itself_is_killed(serve):
    client = serve("signal.signal(signal.SIGTERM, signal.SIG_IGN); hello(); hear(); time.sleep(60)", LAUNCHER)
    collect(client, said_hello)
    pid = client.pid
    assert pid != client._process.pid and is_running(pid)
    client.request("segment")
    client.close()
    assert wait_for(lambda: not is_running(pid))


@posix
def test_a_child_that_outlives_the_worker_neither_hides_its_end_nor_stays(serve):
    client = serve("c = subprocess.Popen(['sleep', '60']); hello(); hear(); say(type='log', text=str(c.pid));"
                   "os.kill(os.getpid(), 9)")  # fmt: skip
    request = client.request("load")
    messages = collect(client, lambda m: m["type"] == "error", 5)
    assert messages[-1]["id"] == request and messages[-1]["kind"] == "crash"
    child = next(int(m["text"]) for m in messages if m["type"] == "log")
    assert wait_for(lambda: not is_running(child))


def test_a_request_without_a_process_is_an_error_message(serve):
    never = WorkerClient()
    assert never.poll() == [] and not never.alive and not never.idle
    assert answer(never, never.request("load"))["kind"] == "crash"
    client = serve("sys.exit(0)")
    answer(client, None)
    request = client.request("load")
    assert answer(client, request)["kind"] == "crash"
    client.cancel(request)


def test_an_end_that_nobody_polled_is_reported_after_the_next_start(serve):
    client = serve("hello(); q = hear(); sys.exit(5) if q['type'] == 'die' else say(type='result', id=q['id']); hear()")
    died = client.request("die")
    assert wait_for(lambda: not client.alive)
    client.start()
    request = client.request("load")
    messages = collect(client, lambda m: m["type"] == "result")
    assert [(m["id"], m.get("kind")) for m in messages if "id" in m] == [(died, "crash"), (request, None)]


def test_a_command_that_is_not_there(tmp_path):
    client = WorkerClient(["/no/such/PythonSlicer"], folder=tmp_path)
    with pytest.raises(SAMMixError, match="PythonSlicer"):
        client.start()
    assert not client.alive and client.poll() == []
    client.close()
    assert not list(tmp_path.iterdir())


def test_the_child_finds_the_library_and_nothing_in_the_working_folder(serve, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    client = serve("import SAMMixLib; hello(); q = hear(); say(type='result', id=q['id'], path=sys.path, lib="
                   "SAMMixLib.__file__, buffered=os.environ['PYTHONUNBUFFERED']); hear()")  # fmt: skip
    result = answer(client, client.request("load"))
    assert Path(result["lib"]).resolve() == Path(client_module.SAMMixLib.__file__).resolve()
    assert sys.version_info < (3, 11) or not {"", str(tmp_path)} & set(result["path"])


def test_only_folders_of_dead_clients_are_swept(tmp_path):
    living = PrivateFolder(tmp_path)
    code = """import os, pathlib, sys
from SAMMixLib.worker.folders import PrivateFolder
print(PrivateFolder(pathlib.Path(sys.argv[1])).path, flush=True)
os._exit(1)"""
    dead, young = (
        Path(subprocess.run([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True).stdout[:-1])
        for _ in range(2)
    )
    unlocked, other = tmp_path / "sammix-worker-unlocked", tmp_path / "other"
    for folder in (unlocked, other):
        folder.mkdir()
    (other / LOCK).touch()
    link = tmp_path / "sammix-worker-link"
    with contextlib.suppress(OSError):
        link.symlink_to(other, target_is_directory=True)
    past = time.time() - YOUNG_SECONDS - 5
    for folder in (living.path, dead, unlocked, other):
        os.utime(folder, (past, past))
    assert dead.is_dir() and young.is_dir()
    sweep(tmp_path)
    assert not dead.exists() and not dead.with_suffix(".log").exists()
    assert all(folder.is_dir() for folder in (living.path, young, unlocked)) and (other / LOCK).is_file()
    living.remove(keep_log=False)


def test_the_client_needs_neither_torch_nor_numpy_and_cleans_up_when_its_process_ends(tmp_path):
    code = """import sys, time
from SAMMixLib.worker.client import WorkerClient
client = WorkerClient([sys.executable, "-c", sys.argv[2]], folder=sys.argv[1])
client.start()
while not any(m["type"] == "hello" for m in client.poll()):
    time.sleep(0.01)
print(client.pid, *{"torch", "numpy", "SimpleITK", "qt", "slicer"} & set(sys.modules))"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path), PRELUDE + ECHO], capture_output=True, text=True,
                         timeout=30)  # fmt: skip
    assert run.returncode == 0, run.stderr
    (pid,) = run.stdout.split()
    assert not list(tmp_path.iterdir()) and wait_for(lambda: not is_running(int(pid)))
