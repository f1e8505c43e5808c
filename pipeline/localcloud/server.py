"""The server: one HTTP endpoint on loopback for every service, with faults, counters and the cloud's own API.

`/_cloud/status`, `/_cloud/faults`, `/_cloud/calls`, `/_cloud/traffic`, `/_cloud/product-codes` and
`/_cloud/organisations` are for the cloud's owner and for tests; everything else is AWS's.
"""

import contextlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from pipeline.localcloud import SSH_PORT, backend, control_plane
from pipeline.localcloud.cloud import Cloud
from pipeline.localcloud.ebs import BlockRequest, BlockService, action_of
from pipeline.localcloud.faults import Fault, FaultRefused, Strike
from pipeline.localcloud.network import may_bind_low_ports, public_port
from pipeline.localcloud.refusals import Refused

log = logging.getLogger("localcloud.server")

CREDENTIAL = re.compile(r"Credential=(?P<key>[^/,\s]+)/\d{8}/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)/aws4_request")
LOCKED = frozenset({"ec2", "ssm", "iam", "sts"})
MOST_BODY = 1 << 24
STOP_SECONDS = 0.02
"""It is looked so often whether the server is to stop."""

Environment = dict[str, Any]
StartResponse = Callable[..., Any]


@dataclass(frozen=True)
class Call:
    """Who asks for what."""

    service: str
    action: str
    region: str
    key: str
    body: bytes


class Application:
    """The WSGI application of one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.blocks = BlockService()
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.calls: list[dict[str, str]] = []
        self.on_stop: Callable[[], None] = lambda: None

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = environ.get("PATH_INFO", "")
        if path.startswith("/_cloud/"):
            return self.answer_owner(environ, path.removeprefix("/_cloud/"), start_response)
        if path.startswith("/moto-api"):
            return send(start_response, 404, b"", "text/plain")
        call = identify(environ)
        strike = self.cloud.faults.strike(call.action)
        if not call.action.startswith("s3:"):
            account = backend.account_from_key(call.key)
            self.calls.append(
                {"service": call.service, "action": call.action, "region": call.region, "account": account}
            )
        if strike.wait_seconds:
            time.sleep(strike.wait_seconds)
        if strike.error is not None:
            status, body, headers = error_answer(call.service, strike.error)
            return send(start_response, status, body, headers["Content-Type"], headers)
        self.cloud.strike = strike
        try:
            answer = self.answer_call(call, environ, start_response)
        finally:
            self.cloud.strike = Strike()
        if strike.lose_response:
            break_connection(environ)
        return answer

    def answer_call(self, call: Call, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a call of AWS's API; one that changes something is on disk before its answer leaves."""
        if call.service == "ebs":
            return self.answer_blocks(call, environ, start_response)
        if call.service not in LOCKED:
            return self.moto.get_application(environ)(environ, start_response)
        with self.cloud.lock:
            if call.service == "ssm":
                self.cloud.seed(call.region)
                backend.publish_parameters(backend.account_from_key(call.key), call.region)
            answer = list(self.moto.get_application(environ)(environ, start_response))
            if control_plane.changes_state(call.service, call.action):
                self.cloud.save()
        return answer

    def answer_blocks(self, call: Call, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer EBS direct."""
        headers = {
            name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")
        }
        try:
            backend.check_region(call.region)
        except Refused as refused:
            return send(start_response, 403, json.dumps({"message": refused.message}).encode(), "application/json")
        request = BlockRequest(
            method=environ["REQUEST_METHOD"],
            path=environ["PATH_INFO"],
            query=environ.get("QUERY_STRING", ""),
            headers=headers,
            body=call.body,
            account_id=backend.account_from_key(call.key),
            region=call.region,
        )
        answer = self.blocks.answer(request)
        kind = answer.headers.get("Content-Type", "application/json")
        return send(start_response, answer.status, answer.body, kind, answer.headers)

    def answer_owner(self, environ: Environment, name: str, start_response: StartResponse) -> Iterable[bytes]:
        """Answer the cloud's own API: JSON in, JSON out. Only a client that says it is one is served, no web page."""
        if environ.get("HTTP_ORIGIN") or environ.get("HTTP_SEC_FETCH_MODE"):
            return send(start_response, 403, b"{}", "application/json")
        method = environ["REQUEST_METHOD"]
        try:
            asked = json.loads(read_body(environ) or b"{}")
            answer = self.owner_actions()[method, name](asked)
        except KeyError as error:
            return send(start_response, 404, json.dumps({"error": f"unknown: {error}"}).encode(), "application/json")
        except (FaultRefused, ValueError, TypeError, Refused) as error:
            return send(start_response, 400, json.dumps({"error": str(error)}).encode(), "application/json")
        return send(start_response, 200, json.dumps(answer).encode(), "application/json")

    def owner_actions(self) -> dict[tuple[str, str], Callable[[Any], Any]]:
        """Return what the cloud's own API can do."""
        faults = self.cloud.faults
        return {
            ("GET", "status"): lambda asked: self.status(),
            ("GET", "faults"): lambda asked: {"faults": faults.listed()},
            ("PUT", "faults"): lambda asked: faults.replace(asked["faults"]),
            ("DELETE", "faults"): lambda asked: faults.replace([]),
            ("GET", "calls"): lambda asked: {"count": dict(faults.calls), "calls": self.calls},
            ("DELETE", "calls"): lambda asked: self.forget_calls(),
            ("GET", "traffic"): self.traffic,
            ("PUT", "product-codes"): self.set_product_codes,
            ("PUT", "organisations"): self.set_organisations,
            ("POST", "stop"): lambda asked: self.on_stop(),
        }

    def forget_calls(self) -> None:
        """Begin to count anew."""
        self.cloud.faults.calls.clear()
        self.calls.clear()

    def traffic(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return which connections an instance has opened since its last start: VPC flow logs, and with names."""
        return {"flows": [flow.describe() for flow in self.cloud.machines.traffic(str(asked["id"]))]}

    def set_product_codes(self, asked: dict[str, Any]) -> None:
        """Give an image, a snapshot, a volume or an instance product codes, as Marketplace does: the API cannot."""
        with self.cloud.changing():
            control_plane.set_product_codes(asked["id"], [str(code) for code in asked["codes"]])

    def set_organisations(self, asked: dict[str, Any]) -> None:
        """Say which organisation and units (ARNs) an account belongs to."""
        with self.cloud.changing():
            backend.organisations[str(asked["account"])] = {str(arn) for arn in asked["arns"]}

    def status(self) -> dict[str, Any]:
        """Return what the cloud is and holds."""
        with self.cloud.lock:
            low_ports = may_bind_low_ports()
            return {
                "home": str(self.cloud.home),
                "ssh_port": public_port(SSH_PORT, low_ports),
                "egress": self.cloud.machines.egress,
                "identity_certificate": str(self.cloud.machines.authority.certificate_path),
                **control_plane.inventory(),
            }


def read_body(environ: Environment) -> bytes:
    """Read a request's body and put it back for whoever comes next."""
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    if not 0 < length <= MOST_BODY:
        return b""
    body: bytes = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = BytesIO(body)
    return body


def identify(environ: Environment) -> Call:
    """Return who asks for what: the service and the region are those of the signature."""
    found = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    service, region, key = (found["service"], found["region"], found["key"]) if found else ("s3", "us-east-1", "")
    method, path = environ.get("REQUEST_METHOD", "GET"), environ.get("PATH_INFO", "/")
    if service == "s3":
        return Call(service, f"s3:{method}", region, key, b"")
    body = read_body(environ)
    if service == "ebs":
        return Call(service, action_of(method, path)[0], region, key, body)
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        return Call(service, target.rpartition(".")[2], region, key, body)
    form = parse_qs(body.decode("utf-8", "replace")) or parse_qs(environ.get("QUERY_STRING", ""))
    return Call(service, form.get("Action", [""])[0], region, key, body)


def error_answer(service: str, fault: Fault) -> tuple[int, bytes, dict[str, str]]:
    """Return an error in the words of a service: XML for EC2, IAM and STS, JSON for the others."""
    if service in ("ec2", "iam", "sts", "s3"):
        inner = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>"
        if service == "ec2":
            text = f"<Response><Errors>{inner}</Errors><RequestID>fault</RequestID></Response>"
        elif service == "s3":
            text = inner
        else:
            text = f"<ErrorResponse>{inner}<RequestId>fault</RequestId></ErrorResponse>"
        return fault.status, text.encode(), {"Content-Type": "text/xml"}
    body = json.dumps({"__type": fault.code, "message": fault.message}).encode()
    return fault.status, body, {"Content-Type": "application/json", "x-amzn-ErrorType": fault.code}


def send(
    start_response: StartResponse, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None
) -> Iterable[bytes]:
    """Send an answer."""
    listed = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
    start_response(f"{status} Answer", list(listed.items()))
    return [body]


def break_connection(environ: Environment) -> None:
    """End the connection before the answer is sent, so that the caller cannot know whether the call was done."""
    connection: socket.socket | None = environ.get("werkzeug.socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("the answer is lost on purpose")


class RequestHandler(MotoRequestHandler):
    """Serves one connection, kept open, without delay for small answers, and quietly."""

    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: the cloud counts calls itself."""

    def log_error(self, format: str, *arguments: object) -> None:
        """Say what broke, but not what was lost on purpose."""
        if "lost on purpose" not in str(arguments):
            log.error(format, *arguments)


class Server:
    """A cloud that listens."""

    def __init__(self, cloud: Cloud, port: int) -> None:
        self.cloud = cloud
        self.application = Application(cloud)
        self._socket = socket.create_server(("127.0.0.1", port), backlog=256)
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1",
            self._socket.getsockname()[1],
            self.application,
            threaded=True,
            request_handler=RequestHandler,
            fd=self._socket.fileno(),
        )
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self) -> None:
        """Answer until `stop` is called."""
        self._server.serve_forever(STOP_SECONDS)

    def start(self) -> None:
        """Answer in a thread of its own."""
        threading.Thread(target=self.serve, name="server", daemon=True).start()

    def stop(self, deadline_seconds: float) -> None:
        """Stop answering, shut the guests down, and save."""
        self._server.shutdown()
        self._server.server_close()
        self._socket.close()
        self.cloud.machines.close(deadline_seconds)
        self.cloud.wait_idle(deadline_seconds)
        with self.cloud.changing():
            pass
