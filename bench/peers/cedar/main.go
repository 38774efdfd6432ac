// Command cedar is an ext_authz server on cedar-go: routes, signals and their age, the decision log and the gRPC server
// are its own, the policies are cedar-go's to evaluate.
package main

import (
	"flag"
	"fmt"
	"os"

	"signalwarden.example/bench/peers/internal/door"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to answer on: host:port, or unix:///path")
	files := flag.String("files", "", "directory with policies.cedar and table.json")
	to := flag.String("log-to", "", "file of the decision log; none without")
	version := flag.Bool("version", false, "say what was built, and end")
	flag.Parse()
	if *version {
		fmt.Println("cedar-go " + door.Version("github.com/cedar-policy/cedar-go"))
		return
	}
	if err := run(*listen, *files, *to); err != nil {
		fmt.Fprintf(os.Stderr, "cedar peer: %v\n", err)
		os.Exit(1)
	}
}

func run(listen, files, to string) error {
	engine, err := load(files)
	if err != nil {
		return err
	}
	if to != "" {
		if engine.log, err = openLog(to); err != nil {
			return err
		}
		defer func() { _ = engine.log.close() }()
	}
	return door.Serve(listen, engine)
}
