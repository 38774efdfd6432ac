package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

const policy = `package peer

default allow := false

allow if {
	data.signals[input.attributes.source.principal]
	input.attributes.request.http.method == "POST"
	startswith(input.attributes.request.http.host, "payments.")
	input.parsed_path = ["v1", "accounts", _, "transfers"]
	to_number(input.parsed_query.amount[0]) <= 100
	time.now_ns() > 0
}
`

func testEngine(t *testing.T, log, to string) *engine {
	t.Helper()
	files := t.TempDir()
	if err := os.Mkdir(filepath.Join(files, "policy"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"policy/routes.rego": policy,
		"data.json":          `{"signals": {"spiffe://a/known": {}}}`,
	} {
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := load(context.Background(), files, log, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.manager.Stop(context.Background()) })
	return made
}

func checkRequest(principal, path string) *auth.CheckRequest {
	return &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Source: &auth.AttributeContext_Peer{Principal: principal},
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Method: "POST", Host: "payments.example", Path: path,
		}},
	}}
}

func TestAPolicyIsAskedWithWhatThePluginWouldGiveIt(t *testing.T) {
	made := testEngine(t, "off", "")
	for _, row := range []struct {
		principal, path string
		want            bool
	}{
		{"spiffe://a/known", "/v1/accounts/42/transfers?amount=100", true},
		{"spiffe://a/known", "/v1/accounts/42/transfers?amount=101", false},
		{"spiffe://a/known", "/v1/accounts/42/transfers", false},
		{"spiffe://a/known", "/v1/accounts/42/transfers/?amount=1", false},
		{"spiffe://a/other", "/v1/accounts/42/transfers?amount=1", false},
		{"", "/v1/accounts/42/transfers?amount=1", false},
	} {
		allow, err := made.Allow(context.Background(), checkRequest(row.principal, row.path))
		if err != nil || allow != row.want {
			t.Errorf("%s %s: %v, %v", row.principal, row.path, allow, err)
		}
	}
}

func TestWhatCanNotBeReadIsRefused(t *testing.T) {
	made := testEngine(t, "off", "")
	for _, check := range []*auth.CheckRequest{
		{},
		checkRequest("spiffe://a/known", ""),
		checkRequest("spiffe://a/known", "no-path"),
		checkRequest("spiffe://a/known", "/v1/accounts/42/transfers?amount=%zz"),
	} {
		if allow, _ := made.Allow(context.Background(), check); allow {
			t.Errorf("%v is let in", check)
		}
	}
}

func TestADecisionIsALineOfOPAsOwnLog(t *testing.T) {
	for _, log := range []string{"file", "console"} {
		file := filepath.Join(t.TempDir(), "decisions.jsonl")
		made := testEngine(t, log, file)
		if allow, err := made.Allow(context.Background(), checkRequest("spiffe://a/known", "/v1/accounts/42/transfers?amount=7")); err != nil || !allow {
			t.Fatalf("%s: %v, %v", log, allow, err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		var said struct {
			ID     string         `json:"decision_id"`
			Input  map[string]any `json:"input"`
			Result bool           `json:"result"`
			Path   string         `json:"path"`
		}
		if err := json.Unmarshal([]byte(lines[0]), &said); err != nil || len(lines) != 1 {
			t.Fatalf("%s: %v: %s", log, err, text)
		}
		if len(said.ID) != 36 || !said.Result || said.Path != path || said.Input["parsed_query"] == nil {
			t.Errorf("%s: %+v", log, said)
		}
	}
}

func TestALogThatDoesNotExistIsRefused(t *testing.T) {
	if _, err := logSettings("paper", ""); err == nil {
		t.Error("taken")
	}
}
