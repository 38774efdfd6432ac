"""Asks about one call of a tool as Envoy would, and prints the answer: `allowed`, or the body of the denial.

python samples/call.py CHECK-ADDRESS GRANT TOOL ARGUMENTS [APPROVAL]
"""

import base64
import json
import sys

import grpc
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse

from signalwarden.request_json import to_bytes

address, grant, tool, arguments, *approval = sys.argv[1:]
headers = {"content-type": "application/json", "x-envoy-auth-partial-body": "false"}
if grant:
    headers["x-signalwarden-grant"] = grant
if approval:
    headers["x-signalwarden-approval"] = approval[0]
params = {"name": tool, "arguments": json.loads(arguments)}
body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
http = {
    "method": "POST",
    "host": "tools.prod.example",
    "path": "/mcp",
    "protocol": "HTTP/2",
    "headers": headers,
    "size": str(len(body)),
    "rawBody": base64.b64encode(body).decode(),
}
source = {"principal": "spiffe://prod.example/ns/agents/sa/desk-agent"}
request = to_bytes(json.dumps({"attributes": {"source": source, "request": {"http": http}}}))
with grpc.insecure_channel(address) as channel:
    check = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check", bytes, bytes)
    answer = CheckResponse.parse(check(request))
print(answer.denied_response.body if answer.denied_response else "allowed")
