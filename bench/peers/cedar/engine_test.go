package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

const policies = `@id("well")
permit (principal, action == Action::"transfer", resource)
when { context.signals has incident && !context.signals.incident };

@id("limit")
forbid (principal, action == Action::"transfer", resource)
when { context.request.args has amount && context.request.args.amount > 100 };

@id("elsewhere")
permit (principal, action == Action::"other", resource);
`

func testEngine(t *testing.T) *engine {
	t.Helper()
	files := t.TempDir()
	table := fmt.Sprintf(`{
	"routes": [{"action": "transfer", "host": "payments.*", "method": "POST", "path": "/v1/accounts/{account}/transfers",
		"resource_type": "Account", "resource": "account", "query": ["amount"]}],
	"entities": [
		{"uid": {"type": "Workload", "id": "spiffe://a/well"}, "attrs": {}, "parents": []},
		{"uid": {"type": "Workload", "id": "spiffe://a/silent"}, "attrs": {}, "parents": []}
	],
	"signals": [{"name": "incident", "subject": "spiffe://a/well", "type": "bool", "value": false, "observed_at": %q, "max_age_s": 3600}]
}`, time.Now().UTC().Format(time.RFC3339Nano))
	for name, text := range map[string]string{"policies.cedar": policies, "table.json": table} {
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := load(files)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func ask(t *testing.T, made *engine, principal, path string) bool {
	t.Helper()
	allow, err := made.Allow(context.Background(), &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Source: &auth.AttributeContext_Peer{Principal: principal},
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Method: "POST", Host: "payments.example", Path: path,
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return allow
}

func TestAPolicyIsAskedWithSignalsAndArguments(t *testing.T) {
	made := testEngine(t)
	for _, row := range []struct {
		principal, path string
		want            bool
	}{
		{"spiffe://a/well", "/v1/accounts/42/transfers?amount=100", true},
		{"spiffe://a/well", "/v1/accounts/42/transfers", true},
		{"spiffe://a/well", "/v1/accounts/42/transfers?amount=101", false},
		{"spiffe://a/well", "/v1/accounts/42/transfers?amount=x", false},
		{"spiffe://a/well", "/v1/accounts/42", false},
		{"spiffe://a/silent", "/v1/accounts/42/transfers", false},
		{"spiffe://a/nobody", "/v1/accounts/42/transfers", false},
		{"", "/v1/accounts/42/transfers", false},
	} {
		if got := ask(t, made, row.principal, row.path); got != row.want {
			t.Errorf("%s %s: %v", row.principal, row.path, got)
		}
	}
}

func TestAnEmptyRequestIsRefused(t *testing.T) {
	if allow, _ := testEngine(t).Allow(context.Background(), &auth.CheckRequest{}); allow {
		t.Error("let in")
	}
}

func TestEveryDecisionIsALineOfTheLog(t *testing.T) {
	made := testEngine(t)
	file := filepath.Join(t.TempDir(), "decisions.jsonl")
	var err error
	if made.log, err = openLog(file); err != nil {
		t.Fatal(err)
	}
	ask(t, made, "spiffe://a/well", "/v1/accounts/42/transfers?amount=7")
	ask(t, made, "spiffe://a/\"q\"\n\u00fc", "/v1/accounts/42/transfers")
	ask(t, made, "spiffe://a/well", "/elsewhere")
	ask(t, made, "spiffe://a/well", "/v1/accounts/42/transfers?amount=x")
	if err := made.log.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines", len(lines))
	}
	var said []map[string]any
	for _, line := range lines {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		said = append(said, one)
	}
	if said[0]["allow"] != true || said[0]["action"] != "transfer" || said[0]["resource"] != "42" {
		t.Errorf("%v", said[0])
	}
	if signals := fmt.Sprint(said[0]["signals"], said[0]["determining"]); !strings.Contains(signals, "incident") || !strings.Contains(signals, "well") {
		t.Errorf("%v", signals)
	}
	if said[1]["principal"] != "spiffe://a/\"q\"\n\u00fc" || said[1]["allow"] != false {
		t.Errorf("%v", said[1])
	}
	if said[3]["error"] != errNoLong.Error() || said[3]["allow"] != false {
		t.Errorf("%v", said[3])
	}
	if _, there := said[2]["action"]; there || said[2]["allow"] != false {
		t.Errorf("%v", said[2])
	}
}

func TestALogThatCanNotBeWrittenRefuses(t *testing.T) {
	made := testEngine(t)
	var err error
	if made.log, err = openLog(filepath.Join(t.TempDir(), "decisions.jsonl")); err != nil {
		t.Fatal(err)
	}
	_ = made.log.file.Close()
	made.log.mutex.Lock()
	made.log.buffer = append(made.log.buffer, "{}\n"...)
	made.log.flush()
	made.log.mutex.Unlock()
	if err := made.write(&decision{}); err == nil {
		t.Error("taken")
	}
	close(made.log.ended)
}
