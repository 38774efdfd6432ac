// Command opa is an ext_authz server on OPA's own packages: prepared query, store, decision logs.
//
// It does what OPA's Envoy plugin does, and spares what the policies here don't need: see input.go and ../README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"signalwarden.example/bench/peers/internal/door"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to answer on: host:port, or unix:///path")
	files := flag.String("files", "", "directory with data.json and policy/*.rego")
	log := flag.String("log", "off", "decision log of OPA: off, file (its file_logger) or console")
	to := flag.String("log-to", "", "file of the decision log")
	version := flag.Bool("version", false, "say what was built, and end")
	flag.Parse()
	if *version {
		fmt.Println("opa " + door.Version("github.com/open-policy-agent/opa"))
		return
	}
	if err := run(*listen, *files, *log, *to); err != nil {
		fmt.Fprintf(os.Stderr, "opa peer: %v\n", err)
		os.Exit(1)
	}
}

func run(listen, files, log, to string) error {
	ctx := context.Background()
	engine, err := load(ctx, files, log, to)
	if err != nil {
		return err
	}
	defer engine.manager.Stop(ctx)
	return door.Serve(listen, engine)
}
