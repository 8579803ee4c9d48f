"""The demo behind `make demo`: from a public data set to recommendations that follow events.

Every command is printed as it is run, so each can be repeated by hand. What is done already is not
done again. DEMO_EXIT=1 stops the service at the end; `--bundle-only` does not start it.
"""

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

RAW = Path("data/ml-100k")
DATASET = Path("data/demo")
RUN = Path("runs/demo")
BUNDLES = Path("bundles")
SERVICE_LOG = RUN / "service.log"
PREFERRED_PORT = 8000
READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
PARITY_LIMIT = 1e-4
REPORTED = ("hr@10", "ndcg@10")
CHILDRENS_FILMS = ("Toy Story", "Lion King, The", "Aladdin")
THRILLERS = ("Aliens", "Terminator, The", "Blade Runner", "Die Hard")

# A proxy of the environment is not for our own service.
http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DemoFailed(Exception):
    """The demo did not show what it promises."""


def main() -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle-only", action="store_true", help="stop after the export")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        make_bundle()
        report_quality()
        if not arguments.bundle_only:
            serve()
    except subprocess.CalledProcessError as exc:
        return fail(f"the last command ended with status {exc.returncode}")
    except (DemoFailed, OSError) as exc:
        return fail(str(exc))
    except KeyboardInterrupt:
        say("stopped")
    return 0


def make_bundle() -> None:
    """Fetch the data, train, evaluate and export."""
    training("fetch-demo", "--out", RAW)
    if not (DATASET / "dataset.json").is_file():
        training("import", "movielens", RAW, "--out", DATASET)
    if (RUN / "metrics.json").is_file():
        say(f"{RUN} is trained already; remove it to train again")
    else:
        training("train", "--data", DATASET, "--out", RUN, "--preset", "demo")
    for split in ("validation", "test"):
        training(
            "evaluate", "--run", RUN, "--split", split, "--protocol", "leave-one-out",
            "--request-time", "known", "--json", evaluation_file(split),
        )  # fmt: skip
    training("export", "--run", RUN, "--out", BUNDLES)


def training(*arguments: str | Path) -> None:
    """Print and run one command of the training program."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    say(f"$ python {shlex.join(command[1:])}")
    subprocess.run(command, check=True)  # noqa: S603  # our own program


def report_quality() -> None:
    """Print the model beside popularity and the parity; raise DemoFailed if either is bad."""
    say("quality, every item ranked, one held-out event a user:")
    for split in ("validation", "test"):
        results = json.loads(evaluation_file(split).read_text("utf-8"))["results"]
        for name in ("model", "popularity"):
            figures = "  ".join(f"{key} {results[name][key]:.4f}" for key in REPORTED)
            print(f"   {split:<11} {name:<11} {figures}")
        if any(results["model"][key] <= results["popularity"][key] for key in REPORTED):
            raise DemoFailed(f"the model is not ahead of popularity on {split}")
    bundle = BUNDLES / (BUNDLES / "CURRENT").read_text("utf-8").strip()
    parity = json.loads((bundle / "manifest.json").read_text("utf-8"))["parity_max_abs"]
    say(f"largest difference between torch and ONNX Runtime: {parity:.1e}")
    if not parity < PARITY_LIMIT:
        raise DemoFailed(f"parity must be below {PARITY_LIMIT:g}")


def serve() -> None:
    """Start the service, show that recommendations follow events, and stop it again."""
    port = free_port()
    command = [
        sys.executable, "-m", "service", "run", "--bundle", str(BUNDLES), "--embedded",
        "--port", str(port),
    ]  # fmt: skip
    say(f"$ python {shlex.join(command[1:])}    (its log is in {SERVICE_LOG})")
    with SERVICE_LOG.open("wb") as log:
        # In a session of its own, so that Ctrl-C reaches this program only, which then stops it.
        service = subprocess.Popen(  # noqa: S603  # our own program
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        base_url = f"http://127.0.0.1:{port}"
        wait_until_ready(service, base_url)
        show_change(base_url)
        if os.environ.get("DEMO_EXIT") != "1":
            say(f"the page is at {base_url}/ and the API's documentation at {base_url}/docs")
            say("Ctrl-C ends the demo")
            service.wait()
            raise DemoFailed(f"the service ended; see {SERVICE_LOG}")
    finally:
        stop(service)


def wait_until_ready(service: "subprocess.Popen[bytes]", base_url: str) -> None:
    """Return when the service is ready; raise DemoFailed if it ends or takes too long."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if service.poll() is not None:
            break
        try:
            http.open(f"{base_url}/readyz", timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    print(SERVICE_LOG.read_text("utf-8", errors="replace")[-4000:])
    raise DemoFailed(f"the service did not become ready in {READY_TIMEOUT_S} s")


def show_change(base_url: str) -> None:
    """Post events twice and print what is recommended after each; raise DemoFailed if equal."""
    user_id = f"visitor-{uuid.uuid4().hex[:8]}"
    known = recommend(base_url, user_id, 500)
    post_events(base_url, user_id, [find_film(known, title) for title in CHILDRENS_FILMS])
    before = recommend(base_url, user_id, 5)
    show(before)
    post_events(base_url, user_id, [find_film(known, title) for title in THRILLERS])
    after = recommend(base_url, user_id, 5)
    show(after)
    ids_before = [item["item_id"] for item in before]
    ids_after = [item["item_id"] for item in after]
    if ids_before == ids_after:
        raise DemoFailed("the recommendations did not change with the events")
    new = len(set(ids_after) - set(ids_before))
    say(f"the events changed the recommendations: {new} of {len(ids_after)} are new")


def find_film(items: list[dict[str, Any]], title: str) -> dict[str, Any]:
    """Return the first item whose title begins so; raise DemoFailed if there is none."""
    for item in items:
        if (item.get("title") or "").startswith(title):
            return item
    raise DemoFailed(f"none of the {len(items)} most popular films is called {title!r}")


def post_events(base_url: str, user_id: str, films: list[dict[str, Any]]) -> None:
    """Post a rating of five for each film, now; raise DemoFailed unless all are accepted."""
    say(f"{user_id} likes " + ", ".join(film["title"] for film in films))
    now_ms = time.time_ns() // 1_000_000
    events = [
        {"user_id": user_id, "item_id": film["item_id"], "event_type": "rating", "value": 5.0,
         "timestamp": now_ms - len(films) + position}
        for position, film in enumerate(films)
    ]  # fmt: skip
    answer = call(f"{base_url}/v1/events", {"events": events})
    if answer["accepted"] != len(events):
        raise DemoFailed(f"of {len(events)} events {answer['accepted']} were accepted: {answer}")


def recommend(base_url: str, user_id: str, k: int) -> list[dict[str, Any]]:
    """Return the top k for a user."""
    items: list[dict[str, Any]] = call(f"{base_url}/v1/users/{user_id}/recommendations?k={k}")[
        "items"
    ]
    return items


def call(url: str, body: object = None) -> dict[str, Any]:
    """GET, or POST a body; return the JSON answer; raise DemoFailed with a problem's detail."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})  # noqa: S310  # our own service
    try:
        with http.open(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as exc:
        problem = exc.read().decode(errors="replace")
        raise DemoFailed(f"{url}: {exc.code}: {problem}") from exc
    return answer


def show(items: list[dict[str, Any]]) -> None:
    """Print a list of recommendations."""
    for item in items:
        score = f"{item['score']:8.3f}"
        print(f"   {item['rank']:>2}. {score}  {item['source']:<8} {item.get('title')}")


def free_port() -> int:
    """Return the preferred port, or any free one when it is taken."""
    for port in (PREFERRED_PORT, 0):
        with socket.socket() as probe:
            # As the server does: a port that was closed a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoFailed("no port is free")


def stop(service: "subprocess.Popen[bytes]") -> None:
    """Ask the service to stop, and end it if it does not."""
    service.terminate()
    try:
        service.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()


def evaluation_file(split: str) -> Path:
    """Return where a split's figures are."""
    return RUN / f"evaluation-{split}.json"


def say(text: str) -> None:
    """Print one line of the story at once, among the output of the commands."""
    print(f"== {text}", flush=True)


def fail(reason: str) -> int:
    """Print why the demo failed; return the exit status for it."""
    print(f"demo failed: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
