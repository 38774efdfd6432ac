// Command rego_cost decides the inputs of a file by a policy in Rego, with OPA's own packages, and says what a decision took.
//
// It is no server: what is timed is what OPA's Envoy plugin does between the request and the answer, the conversion of the
// input and the evaluation of a prepared query, without its decision log.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"signalwarden.example/bench/peers/internal/door"
)

const query = "data.authz.allow"

func main() {
	files := flag.String("files", "", "directory with policy.rego and inputs.json")
	checks := flag.Int("checks", 1000, "decisions of a round")
	rounds := flag.Int("rounds", 1, "rounds")
	version := flag.Bool("version", false, "say what was built, and end")
	flag.Parse()
	if *version {
		fmt.Println("opa " + door.Version("github.com/open-policy-agent/opa"))
		return
	}
	if err := run(*files, *checks, *rounds); err != nil {
		fmt.Fprintf(os.Stderr, "rego_cost: %v\n", err)
		os.Exit(1)
	}
}

func run(files string, checks, rounds int) error {
	ctx := context.Background()
	policy, err := os.ReadFile(filepath.Join(files, "policy.rego"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(files, "inputs.json"))
	if err != nil {
		return err
	}
	var inputs []any
	if err := json.Unmarshal(text, &inputs); err != nil {
		return err
	}
	prepared, err := rego.New(rego.Query(query), rego.Module("policy.rego", string(policy))).PrepareForEval(ctx)
	if err != nil {
		return err
	}
	answers := make([]bool, len(inputs))
	for at, input := range inputs {
		if answers[at], err = decide(ctx, prepared, input); err != nil {
			return err
		}
	}
	times := make([]int64, rounds)
	for round := range times {
		started := time.Now()
		for nth := range checks {
			if _, err := decide(ctx, prepared, inputs[nth%len(inputs)]); err != nil {
				return err
			}
		}
		times[round] = time.Since(started).Nanoseconds() / int64(checks)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"answers": answers, "ns": times})
}

func decide(ctx context.Context, prepared rego.PreparedEvalQuery, input any) (bool, error) {
	value, err := ast.InterfaceToValue(input)
	if err != nil {
		return false, err
	}
	results, err := prepared.Eval(ctx, rego.EvalParsedInput(value))
	if err != nil {
		return false, err
	}
	if len(results) != 1 {
		return false, errors.New("no decision")
	}
	allow, ok := results[0].Expressions[0].Value.(bool)
	if !ok {
		return false, errors.New("the decision is no boolean")
	}
	return allow, nil
}
