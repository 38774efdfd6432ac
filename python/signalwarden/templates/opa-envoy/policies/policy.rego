package envoy.authz

import rego.v1

import input.attributes.request.http as http_request

default allow := false

# Anyone may look.
allow if http_request.method in {"GET", "HEAD"}

# Orders are placed by clerks.
allow if {
	http_request.method == "POST"
	input.parsed_path == ["orders"]
	http_request.headers["x-role"] == "clerk"
	input.parsed_body.amount <= 100
}
