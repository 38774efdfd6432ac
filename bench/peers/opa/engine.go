package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/logging"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/plugins"
	filelogger "github.com/open-policy-agent/opa/v1/plugins/logger/file"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/server"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/sirupsen/logrus"

	"signalwarden.example/bench/peers/internal/door"
)

const (
	query = "data.peer.allow"
	path  = "peer/allow"
)

// engine is OPA's plugin manager with a store, a prepared query and, perhaps, its decision log.
type engine struct {
	manager  *plugins.Manager
	prepared rego.PreparedEvalQuery
	log      *logs.Plugin
	cancel   topdown.Cancel
	metrics  metrics.Metrics
}

// load reads data and policies, compiles, and starts the decision log where there is to be one.
func load(ctx context.Context, files, log, to string) (*engine, error) {
	loaded, err := loader.NewFileLoader().All([]string{files})
	if err != nil {
		return nil, err
	}
	// Values stay as OPA evaluates them, instead of being converted at each read.
	store := inmem.NewWithOpts(inmem.OptReturnASTValuesOnRead(true), inmem.OptRoundTripOnWrite(false))
	options := []func(*plugins.Manager){plugins.InitFiles(*loaded), plugins.Logger(logging.NewNoOpLogger())}
	settings, err := logSettings(log, to)
	if err != nil {
		return nil, err
	}
	if log == "console" {
		console, err := consoleTo(to)
		if err != nil {
			return nil, err
		}
		options = append(options, plugins.ConsoleLogger(console))
	}
	manager, err := plugins.New(settings, "bench", store, options...)
	if err != nil {
		return nil, err
	}
	if err := manager.Init(ctx); err != nil {
		return nil, err
	}
	made := &engine{manager: manager, cancel: topdown.NewCancel(), metrics: metrics.NoOp()}
	if log != "off" {
		if made.log, err = decisionLog(manager, log, to); err != nil {
			return nil, err
		}
	}
	if err := manager.Start(ctx); err != nil {
		return nil, err
	}
	made.prepared, err = rego.New(
		rego.Query(query), rego.Compiler(manager.GetCompiler()), rego.Store(store),
	).PrepareForEval(ctx)
	return made, err
}

// logSettings is OPA's configuration: what a user would write to have that log.
func logSettings(log, to string) ([]byte, error) {
	switch log {
	case "off":
		return []byte("{}"), nil
	case "console":
		return json.Marshal(map[string]any{"decision_logs": map[string]any{"console": true}})
	case "file":
		return json.Marshal(map[string]any{
			"decision_logs": map[string]any{"plugin": filelogger.Name},
			"plugins":       map[string]any{filelogger.Name: map[string]any{"path": to}},
		})
	}
	return nil, fmt.Errorf("there is no decision log `%s`", log)
}

// consoleTo is OPA's console logger with its JSON format (the default of `opa run`), into a file.
func consoleTo(file string) (*logging.StandardLogger, error) {
	sink, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	console := logging.New()
	console.SetOutput(sink)
	console.SetFormatter(&logrus.JSONFormatter{})
	return console, nil
}

// decisionLog is OPA's own plugin of that name, registered as its runtime does.
func decisionLog(manager *plugins.Manager, log, to string) (*logs.Plugin, error) {
	known := []string{}
	if log == "file" {
		factory := &filelogger.Factory{}
		raw, err := json.Marshal(map[string]any{"path": to})
		if err != nil {
			return nil, err
		}
		settings, err := factory.Validate(manager, raw)
		if err != nil {
			return nil, err
		}
		manager.Register(filelogger.Name, factory.New(manager, settings))
		known = append(known, filelogger.Name)
	}
	settings, err := logs.NewConfigBuilder().
		WithBytes(manager.Config.DecisionLogs).
		WithServices(manager.Services()).
		WithPlugins(known).
		WithLogger(manager.Logger()).
		Parse()
	if err != nil {
		return nil, err
	}
	plugin := logs.New(settings, manager)
	manager.Register(logs.Name, plugin)
	return plugin, nil
}

// Allow asks the policies, and writes the decision down before it is known to anyone.
func (e *engine) Allow(ctx context.Context, check *auth.CheckRequest) (bool, error) {
	asked, err := read(check)
	if err != nil {
		return false, err
	}
	txn, err := e.manager.Store.NewTransaction(ctx)
	if err != nil {
		return false, err
	}
	defer e.manager.Store.Abort(ctx, txn)
	input := asked.value()
	now := time.Now()
	results, err := e.prepared.Eval(
		ctx,
		rego.EvalParsedInput(input),
		rego.EvalTransaction(txn),
		rego.EvalTime(now),
		rego.EvalMetrics(e.metrics),
		// Policies without loops need no goroutine that waits to cancel them.
		rego.EvalExternalCancel(e.cancel),
	)
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
	if e.log == nil {
		return allow, nil
	}
	return allow, e.write(ctx, txn, &asked, input, allow, now)
}

func (e *engine) write(
	ctx context.Context, txn storage.Transaction, asked *request, input ast.Value, allow bool, now time.Time,
) error {
	id, err := door.DecisionID()
	if err != nil {
		return err
	}
	document, result := asked.document(), any(allow)
	return e.log.Log(ctx, &server.Info{
		Txn:        txn,
		DecisionID: id,
		Timestamp:  now,
		Path:       path,
		Input:      &document,
		InputAST:   input,
		Results:    &result,
	})
}
