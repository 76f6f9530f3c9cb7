"""The OpenAPI document is true: every route is in it, and nothing that is served differs from what it says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from flask import Flask
from jsonschema import Draft202012Validator
from running import ADDRESS, CTWEB, Ctweb, signed_in

from ctweb.settings import SETTINGS
from ctweb.table.properties import PROPERTIES
from ctweb.web import openapi, rest

TRACKING = "/rest/ip/firewall/connection/tracking"
URL = f"http://{ADDRESS}"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
OPTIONS = ("--generation-deterministic", "--suppress-health-check", "all", "--warnings", "off", "--no-color")
FUZZING = ("--phases", "fuzzing", "--max-examples", "12")
# Every boundary of every parameter: minutes where there are fifty of them, seconds here.
COVERAGE = ("--phases", "coverage", "--include-path-regex", r"/(ip/.*/remove|ip/.*/\{id\}|system/.*|healthz)$")


def test_every_route_of_rest_is_described_and_no_other():
    app = Flask("test")
    app.register_blueprint(rest.blueprint(None))
    routes = set()
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.startswith(("static", "rest.nothing")):
            path = rule.rule.replace("<identity>", "{id}")
            routes |= {(path, method.lower()) for method in rule.methods - {"HEAD", "OPTIONS"}}
    described = {
        (path, method)
        for path, item in openapi.document()["paths"].items()
        for method in item
        if path.startswith("/rest/") and method != "parameters"
    }
    assert described == routes


def test_it_knows_every_property_and_every_setting():
    schemas = openapi.document()["components"]["schemas"]
    assert schemas["Connection"]["properties"].keys() == PROPERTIES.keys()
    assert schemas["TrackingChanges"]["properties"].keys() == SETTINGS.keys()
    parameters = openapi.document()["paths"]["/rest/ipv6/firewall/connection"]["get"]["parameters"]
    assert PROPERTIES.keys() | {".proplist", "where", "count-only"} <= {one["name"] for one in parameters}


def test_its_schemas_are_json_schemas():
    for schema in openapi.document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/rest/ip/firewall/connection/tracking", "Tracking"),
        ("/rest/system/resource", "Resource"),
        ("/rest/system/identity", "Identity"),
    ],
)
def test_objects_have_what_it_says_and_all_of_it(ctweb: Ctweb, path, name):
    status, document = ctweb.get("/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    schema = document["components"]["schemas"][name]
    answer = ctweb.get(path)[1]
    Draft202012Validator(schema).validate(answer)
    assert answer.keys() >= schema["properties"].keys() - {"cpu", "cpu-frequency", "board-name"}


@pytest.mark.parametrize("phase", [FUZZING, COVERAGE], ids=["fuzzing", "coverage"])
def test_whatever_is_asked_the_answer_is_one_that_it_describes(ctweb: Ctweb, tmp_path: Path, phase):
    """schemathesis makes requests from the document, good and bad ones. Its own connections are the rows."""
    (header,) = signed_in(ctweb.state_dir).items()
    fuzz(tmp_path, "--header", ": ".join(header), *phase, document=ctweb.get("/openapi.json")[1])
    log = ctweb.log.read_text()
    assert "Traceback" not in log
    assert "a request failed" not in log


def test_whatever_an_outsider_asks_the_answer_is_one_that_it_describes(ctweb: Ctweb, tmp_path: Path):
    before = ctweb.get(TRACKING)
    fuzz(tmp_path, *FUZZING, document=openapi.document())
    assert ctweb.get(TRACKING)[1]["udp-timeout"] == before[1]["udp-timeout"]
    assert "a request failed" not in ctweb.log.read_text()


def fuzz(directory: Path, *options: str, document: object) -> None:
    """schemathesis finds nothing in what is served that the document does not say."""
    file = directory / "openapi.json"
    file.write_text(json.dumps(document))
    done = subprocess.run(
        [CTWEB.with_name("schemathesis"), "run", file, "--url", URL, "--checks", CHECKS, *OPTIONS, *options],
        capture_output=True, text=True, timeout=300, check=False, cwd=directory,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert "passed" in done.stdout


def test_who_is_not_signed_in_gets_nothing_that_is_not_said_to_be_public(ctweb: Ctweb):
    for path, item in openapi.document()["paths"].items():
        for method in item.keys() - {"parameters"}:
            status, _, body = ctweb.ask(method.upper(), path.replace("{id}", "*1"), anonymous=True)
            if item[method].get("security") == []:
                assert (status, json.loads(body)) == (200, {"status": "ok"})
            else:
                assert (status, json.loads(body)) == (401, {"error": 401, "message": "Unauthorized"}), (method, path)
