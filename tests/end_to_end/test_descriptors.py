"""A server without a free file descriptor says so and when to come again, whichever descriptor is the missing one."""

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
    posted = httpx.post(f"{server.http}/v1/scans", content=stream, headers={"content-type": "application/x-mrd"})
    scan = posted.json()["scan"]
    server.service.wait(scan, 30.0)
    address = server.http.removeprefix("http://")
    kinds = ["x-mrd", "x-hdf5", "zip"]
    reads = [("images/0.png", "*/*"), ("images/0.dcm", "*/*"), ("images", "image/png"), ("raw", "*/*")]
    reads += [("images", f"application/{kind}") for kind in kinds]
    for path, accept in reads:
        connection = http.client.HTTPConnection(address, timeout=30.0)
        connection.request("GET", f"/v1/scans/{scan}/{path}", headers={"accept": accept})
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True), path
        taken = []
        while answer.status == 200:  # the server may give one back after we took all
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            connection.request("GET", f"/v1/scans/{scan}/{path}", headers={"accept": accept})
            answer = connection.getresponse()
            content = answer.read()
        for number in taken:
            os.close(number)
        kind, retry = answer.headers["content-type"], answer.headers["retry-after"]
        answers.append([path, answer.status, kind, retry, json.loads(content).get("detail", "")])
        connection.request("GET", f"/v1/scans/{scan}/{path}", headers={"accept": accept})
        assert connection.getresponse().status == 200, path
        connection.close()
    for spare in range(6):
        connection = http.client.HTTPConnection(address, timeout=30.0)
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


def test_a_request_without_a_descriptor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRIAL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["images"], seen["texts"]) == (1, [])
    refused = [answer for answer in seen["answers"] if answer[1] != 201]
    assert len(refused) > len(seen["answers"]) - 6  # some of the uploads found one to spare
    for _, status, kind, retry, detail in refused:
        assert (status, kind) == (503, "application/problem+json")
        assert "now (Too many open files): try again later, or have it started with more open files" in detail
        assert int(retry) > 0
