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
from worker_helpers import answer, answers, collect, is_running, posix, said_hello, wait_for

import SAMMixLib
from SAMMixLib.errors import SAMMixError
from SAMMixLib.worker import child as child_module
from SAMMixLib.worker import client as client_module
from SAMMixLib.worker.client import LogLine, WorkerClient
from SAMMixLib.worker.folders import LOCK, YOUNG_SECONDS, PrivateFolder, sweep
from SAMMixLib.worker.protocol import (
    ErrorKind,
    Failed,
    Hello,
    Load,
    Progressed,
    Segment,
    Stage,
    Suggest,
    Suggested,
    Unload,
    Unloaded,
)

PRELUDE = """
import json, os, signal, subprocess, sys, time
def say(type, **message):
    sys.stdout.write(json.dumps({"type": type, **message}) + "\\n")
    sys.stdout.flush()
def hear():
    line = sys.stdin.readline()
    if not line or json.loads(line)["type"] == "quit":
        os._exit(0)
    return json.loads(line)
def hello():
    say("hello", pid=os.getpid(), versions={}, devices=[], protocol=3)
"""
ECHO = "hello()\nwhile True:\n    say('unloaded', id=hear()['id'])\n"
VOLUME = Segment("ct.nrrd")


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


def test_a_request_is_answered_under_its_id(serve):
    client = serve("hello(); say('heartbeat'); q = hear(); n = q['id'];"
                   "say('progressed', id=n, stage='segment slices', done=1, total=2);"
                   "say('suggested', id=n, slices=q['labelled'], reasons=[q['type']]); hear()")  # fmt: skip
    assert client.alive and not client.idle
    request = client.request(Suggest([1, 2]))
    (_, hello), *rest = collect(client, answers(request))
    assert rest == [(request, Progressed(Stage.SEGMENT, 1, 2)), (request, Suggested([1, 2], ["suggest"]))]
    assert isinstance(hello, Hello) and client.idle and client.pid == hello.pid


def test_the_folder_is_private_and_goes_with_the_client(serve, tmp_path):
    one, other = serve(ECHO), serve(ECHO)
    assert one.folder != other.folder
    if os.name != "nt":
        assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700 and stat.S_IMODE(one.log_path.stat().st_mode) == 0o600
    collect(one, said_hello)
    collect(other, said_hello)
    (one.folder / "volume.nrrd").write_bytes(b"CT")
    pid = one.pid
    one.close()
    assert not is_running(pid)
    assert sorted(tmp_path.iterdir()) == sorted([other.folder, other.log_path])
    assert answer(other, other.request(Load())) == Unloaded()


@posix
def test_a_killed_worker_is_a_crash_and_the_next_run_works(serve):
    client = serve("hello()\nwhile True:\n    q = hear(); print('last words', file=sys.stderr)\n"
        "    os.kill(os.getpid(), 9) if q['type'] == 'segment' else say('unloaded', id=q['id'])")  # fmt: skip
    folder = client.folder
    first, second = client.request(VOLUME), client.request(Load())
    errors = [(n, m) for n, m in collect(client, answers(second)) if isinstance(m, Failed)]
    assert [(n, m.kind) for n, m in errors] == [(first, ErrorKind.CRASH), (second, ErrorKind.CRASH)]
    text, log = errors[0][1].message, Path(errors[0][1].log)
    assert "killed" in text and "memory" in text and "\n" not in text and "last words" in log.read_text()
    assert not client.alive and not client.idle and client.poll() == []
    client.start()
    assert answer(client, client.request(Load())) == Unloaded() and client.folder == folder
    client.close()
    assert not folder.exists() and log.is_file()  # for the user to read


HELLO_FROM_ELSEWHERE = "say('hello', pid=os.getpid(), versions={}, devices=[], protocol=9, colour='red'); hear()"


@pytest.mark.parametrize(
    "body, kind, words",
    [
        ("sys.exit(3)", "crash", "exit status 3"),
        ("hello(); sys.exit(4)", "crash", "exit status 4"),
        ("hello(); sys.exit(1)", "crash", "exit status 1"),
        ("hello(); hear(); os.close(1); time.sleep(60)", "crash", "closed its pipe"),
        ("say('failed', kind='internal', message='no torch', log=''); sys.exit(1)", "internal", "no torch"),
        (HELLO_FROM_ELSEWHERE, "internal", "hello: version 9 of the protocol, not 3"),
        pytest.param("hello(); hear(); os.kill(os.getpid(), 11)", "crash", "signal 11", marks=posix),
        pytest.param(
            "import faulthandler; faulthandler.enable(); hello(); hear(); os.kill(os.getpid(), 11)",
            "crash",
            "Segmentation fault",
            marks=posix,
        ),
    ],
)
def test_every_end_of_the_process_is_reported(serve, body, kind, words):
    client = serve(body)
    error = answer(client, client.request(Load()))
    assert error.kind == kind and words in error.message
    assert wait_for(lambda: not client.alive)


@pytest.mark.parametrize(
    "words, named",
    [
        ("'suggested', slices=[1], reasons=['r'], colour='red'", "suggested: unknown field colour"),
        ("'suggested', slices=[1]", "reasons"),
        ("'suggested', slices=['1'], reasons=[]", "slices: '1' is no int"),
        ("'gone'", "gone: no such message"),
    ],
)
def test_an_answer_that_is_not_understood_is_refused_by_name(serve, words, named):
    client = serve(f"hello()\nwhile True:\n    q = hear()\n    if q['type'] == 'load':\n"
                   f"        say('unloaded', id=q['id'])\n    else:\n        say({words}, id=q['id'])")  # fmt: skip
    error = answer(client, client.request(Suggest([])))
    assert error.kind is ErrorKind.INTERNAL and named in error.message
    assert answer(client, client.request(Load())) == Unloaded(), "and the worker lives on"


@posix
def test_two_clients_do_not_disturb_each_other(serve):
    one, other = serve(ECHO), serve(ECHO)
    collect(one, said_hello)
    collect(other, said_hello)
    os.kill(one.pid, signal.SIGKILL)
    assert answer(one, None).kind is ErrorKind.CRASH
    one.close()
    assert other.folder.is_dir() and answer(other, other.request(Load())) == Unloaded()


def test_an_idle_worker_that_dies_is_reported_once(serve):
    client = serve("hello(); sys.exit(5)")
    assert answer(client, None).kind is ErrorKind.CRASH and client.poll() == []


@posix
def test_the_systems_kill_for_want_of_memory_is_told_apart(serve, monkeypatch):
    kills = iter([7, 8])
    monkeypatch.setattr(child_module, "oom_kills", lambda: next(kills))
    client = serve("hello(); hear(); os.kill(os.getpid(), 9)")
    error = answer(client, client.request(VOLUME))
    assert error.kind is ErrorKind.MEMORY and "emory" in error.message


def test_what_is_no_message_becomes_a_log_line(serve):
    client = serve("hello(); q = hear(); print('a library prints'); sys.stdout.buffer.write(b'\\xff\\n{\"id\": 1}\\n');"
                   "sys.stdout.flush(); print('x' * 100000); say('unloaded', id=q['id']); hear()")  # fmt: skip
    request = client.request(Load())
    heard = collect(client, answers(request))
    logs = [m.text for _, m in heard if isinstance(m, LogLine)]
    assert logs == ["a library prints", "\ufffd", '{"id": 1}', "x" * 1000] and heard[-1] == (request, Unloaded())


def test_answers_to_nobodys_request_are_dropped(serve):
    client = serve("hello(); q = hear(); say('unloaded', id=99); say('unloaded', id=q['id']); hear()")
    request = client.request(Load())
    assert [number for number, _ in collect(client, answers(request))] == [None, request]


def test_a_silent_worker_times_out(serve, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.4)
    client = serve("hello(); time.sleep(60)")
    collect(client, said_hello)
    pid = client.pid
    error = answer(client, client.request(VOLUME), 3)
    assert error.kind is ErrorKind.TIMEOUT and not client.alive and wait_for(lambda: not is_running(pid))


def test_no_hello_times_out(serve, monkeypatch):
    monkeypatch.setattr(client_module, "START_SECONDS", 0.4)
    assert answer(serve("time.sleep(60)"), None).kind is ErrorKind.TIMEOUT


@pytest.mark.slow
def test_a_beating_heart_without_progress_times_out(serve, monkeypatch):
    monkeypatch.setattr(Load, "patience", 1.0)
    beat = "say('heartbeat'); time.sleep(0.05)"
    step = "say('progressed', id=q['id'], stage='load model', done=n, total=20)"
    body = f"hello(); q = hear()\nfor n in range(20):\n    {step}; {beat}\n"
    client = serve(f"{body}while True:\n    {beat}\n")
    request = client.request(Load())
    told = [message for _, message in collect(client, answers(request))]
    assert told[-1].kind is ErrorKind.TIMEOUT
    assert sum(isinstance(message, Progressed) for message in told) == 20, "each step is a reason to wait on"


def test_a_caller_that_was_held_up_is_no_false_alarm(serve, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.6)
    monkeypatch.setattr(client_module, "OBSERVED_SECONDS", 0.2)
    client = serve("hello(); q = hear(); time.sleep(1.2); say('unloaded', id=q['id']); hear()")
    collect(client, said_hello)
    request = client.request(Load())
    time.sleep(1.0)  # nobody polls, as while a modal dialog is open
    assert answer(client, request) == Unloaded()


def test_cancel_is_obeyed(serve):
    client = serve("hello(); q = hear(); c = hear(); assert c == {'type': 'cancel', 'id': q['id']};"
                   "say('failed', id=q['id'], kind='cancelled', message='Cancelled.', log=''); hear()")  # fmt: skip
    request = client.request(VOLUME)
    client.cancel(request)
    client.cancel(request)
    assert answer(client, request).kind is ErrorKind.CANCELLED and client.idle


@pytest.mark.slow
def test_a_worker_that_does_not_obey_is_killed(serve):
    client = serve("hello(); hear()\nwhile True:\n    say('heartbeat'); time.sleep(0.1)\n")
    collect(client, said_hello)
    pid, request = client.pid, client.request(VOLUME)
    client.cancel(request)
    assert answer(client, request).kind is ErrorKind.CANCELLED
    assert not client.alive and wait_for(lambda: not is_running(pid))


LAUNCHER = (sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))")


@posix
def test_behind_a_launcher_the_worker_itself_is_killed(serve):
    client = serve("signal.signal(signal.SIGTERM, signal.SIG_IGN); hello(); hear(); time.sleep(60)", LAUNCHER)
    collect(client, said_hello)
    pid = client.pid
    assert pid != client._child.pid and is_running(pid)
    client.request(VOLUME)
    client.close()
    assert wait_for(lambda: not is_running(pid))


# What PythonSlicer does: of a child that died by a signal it says exit status 1. A shell says 128 and the signal.
PYTHON_SLICER = (
    sys.executable,
    "-c",
    "import subprocess, sys; status = subprocess.call(sys.argv[1:]); sys.exit(1 if status < 0 else status)",
)
SHELL = ("/bin/sh", "-c", '"$@"; exit $?', "launcher")


@posix
@pytest.mark.parametrize("launcher", [PYTHON_SLICER, SHELL])
def test_behind_a_launcher_a_kill_is_told_as_a_kill(serve, launcher):
    client = serve("hello(); hear(); time.sleep(60)", launcher)
    collect(client, said_hello)
    request = client.request(VOLUME)
    os.kill(client.pid, signal.SIGKILL)
    error = answer(client, request)
    assert error.kind is ErrorKind.CRASH and "exit status" not in error.message
    assert "killed by a user, or by the system because memory ran out" in error.message


@posix
@pytest.mark.parametrize(
    "body, words",
    [
        ("hello(); hear(); sys.exit(3)", "exit status 3"),
        ("sys.exit(1)", "exit status 1"),  # before its hello: it did not even start
        ("import faulthandler; faulthandler.enable(); hello(); hear(); os.abort()", "Aborted"),
    ],
)
def test_behind_a_launcher_other_ends_are_told_as_they_are(serve, body, words):
    client = serve(body, PYTHON_SLICER)
    assert words in answer(client, client.request(VOLUME)).message


@posix
def test_the_log_of_an_earlier_end_is_not_taken_for_that_of_the_last(serve):
    client = serve("import faulthandler; faulthandler.enable(); hello(); hear(); os.abort()")
    assert "Aborted" in answer(client, client.request(VOLUME)).message
    client.start()
    collect(client, said_hello)
    os.kill(client.pid, signal.SIGKILL)
    assert "killed by a user" in answer(client, None).message


@pytest.mark.slow
@posix
def test_a_child_that_outlives_the_worker_neither_hides_its_end_nor_stays(serve):
    client = serve("c = subprocess.Popen(['sleep', '60']); hello(); hear(); print(c.pid, flush=True);"
                   "os.kill(os.getpid(), 9)")  # fmt: skip
    request = client.request(Load())
    heard = collect(client, answers(request), 5)
    assert heard[-1][1].kind is ErrorKind.CRASH
    child = next(int(m.text) for _, m in heard if isinstance(m, LogLine))
    assert wait_for(lambda: not is_running(child))


def test_a_request_without_a_process_is_an_error_message(serve):
    never = WorkerClient()
    assert never.poll() == [] and not never.alive and not never.idle
    assert answer(never, never.request(Load())).kind is ErrorKind.CRASH
    client = serve("sys.exit(0)")
    answer(client, None)
    request = client.request(Load())
    assert answer(client, request).kind is ErrorKind.CRASH
    client.cancel(request)


def test_an_end_that_nobody_polled_is_reported_after_the_next_start(serve):
    client = serve("hello(); q = hear(); sys.exit(5) if q['type'] == 'unload' else say('unloaded', id=q['id']); hear()")
    died = client.request(Unload())
    assert wait_for(lambda: not client.alive)
    client.start()
    request = client.request(Load())
    heard = [(n, getattr(m, "kind", None)) for n, m in collect(client, answers(request)) if n]
    assert heard == [(died, ErrorKind.CRASH), (request, None)]


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
    client = serve("import SAMMixLib; hello(); q = hear(); say('suggested', id=q['id'], slices=[], reasons=["
                   "SAMMixLib.__file__, os.environ['PYTHONUNBUFFERED'], *sys.path]); hear()")  # fmt: skip
    library, _, *path = answer(client, client.request(Load())).reasons
    assert Path(library).resolve() == Path(SAMMixLib.__file__).resolve()
    assert sys.version_info < (3, 11) or not {"", str(tmp_path)} & set(path)


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
while not any(type(m).__name__ == "Hello" for _, m in client.poll()):
    time.sleep(0.01)
print(client.pid, *{"torch", "numpy", "SimpleITK", "qt", "slicer"} & set(sys.modules))"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path), PRELUDE + ECHO], capture_output=True, text=True,
                         timeout=30)  # fmt: skip
    assert run.returncode == 0, run.stderr
    (pid,) = run.stdout.split()
    assert not list(tmp_path.iterdir()) and wait_for(lambda: not is_running(int(pid)))
