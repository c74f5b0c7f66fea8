"""Runs tools in processes of their own, forked from one that has imported the toolboxes: importing takes seconds."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Answers each line of JSON with the exit status of the tool that it asks for. The child leaves the loop and runs the
# tool as the main program, so that it ends as any Python program does.
SERVER = """
import importlib, json, os, runpy, sys

for name in ('mmengine.runner', 'mmdet.apis', 'mmseg.apis', 'ruas_mm.apis.tools'):
    try:
        importlib.import_module(name)
    except ImportError:
        pass

def serve():
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

request = serve()
if request:
    os.chdir(request['cwd'])
    for descriptor, name in ((1, 'stdout'), (2, 'stderr')):
        os.dup2(os.open(request[name], os.O_WRONLY), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = request['command']
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name='__main__')
"""
_server = None


def run_prepared(tool, *arguments, cwd):
    """Run a tool as ``subprocess.run`` would with ``capture_output`` and ``text``.

    A tool that starts its own processes or changes what is imported needs ``subprocess.run`` itself.
    """
    global _server
    if _server is None:
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
        _server = subprocess.Popen(
            [sys.executable, '-c', SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
    command = [*map(str, [tool, *arguments])]
    with tempfile.NamedTemporaryFile() as stdout, tempfile.NamedTemporaryFile() as stderr:
        request = {'command': command, 'cwd': str(cwd), 'stdout': stdout.name, 'stderr': stderr.name}
        try:
            print(json.dumps(request), file=_server.stdin, flush=True)
            status = int(_server.stdout.readline())
        except BaseException:  # the time limit of the test: whatever still runs is not the next test's
            _stop()
            raise
        texts = [Path(file.name).read_text() for file in (stdout, stderr)]
    return subprocess.CompletedProcess(command, status, *texts)


@atexit.register
def _stop():
    global _server
    if _server is not None:
        os.killpg(_server.pid, signal.SIGKILL)
        _server.wait()
        _server = None
