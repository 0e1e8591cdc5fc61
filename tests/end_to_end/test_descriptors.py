"""A server that runs out of file descriptors refuses an upload in words, whichever descriptor is the missing one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TRIAL = """
import http.client, json, os, resource, sys, time
from pathlib import Path
import httpx
from tests.cluster import scans
from tests.end_to_end.running import converse, running

stream = scans.stream(scans.frames(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
answers = []
with running(Path(sys.argv[1])) as server:
    # What is imported when it is first needed is there after these.
    converse(server.mrd, stream)
    httpx.post(f"{server.http}/v1/scans", content=stream, headers={"content-type": "application/x-mrd"})
    for spare in range(6):
        connection = http.client.HTTPConnection(server.http.removeprefix("http://"), timeout=30.0)
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        for _ in range(spare):
            os.close(taken.pop())
        connection.putrequest("POST", "/v1/scans")
        connection.putheader("content-type", "application/x-mrd")
        connection.putheader("content-length", str(len(stream)))
        connection.endheaders()
        connection.send(stream[:100])
        time.sleep(0.3)  # so that the server meets the body in two pieces; the answer is right either way
        try:
            connection.send(stream[100:])
        except OSError:
            pass  # it was refused meanwhile
        answer = connection.getresponse()
        content = answer.read()
        for number in taken:
            os.close(number)
        connection.close()
        kind, retry = answer.headers["content-type"], answer.headers["retry-after"]
        answers.append([spare, answer.status, kind, retry, json.loads(content).get("detail", "")])
    alive = converse(server.mrd, stream)
    print(json.dumps({"answers": answers, "images": len(alive.images), "texts": alive.texts}))
"""


def test_an_upload_without_a_descriptor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRIAL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["images"], seen["texts"]) == (1, [])
    refused = [answer for answer in seen["answers"] if answer[1] != 201]
    assert refused
    for _, status, kind, retry, detail in refused:
        assert status in (503, 507)
        assert kind == "application/problem+json"
        assert "Too many open files" in detail
        assert "internal error" not in detail
        if status == 503:
            assert int(retry) > 0
    assert 503 in {status for _, status, *_ in refused}
