package main

import (
	"net/url"
	"strings"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"

	"signalwarden.example/bench/peers/internal/door"
)

// request is what the policies read of a CheckRequest. The plugin converts the whole message, by way of maps.
type request struct {
	principal, method, host, path string
	parsedPath                    []string
	parsedQuery                   url.Values
}

// Keys of the input, made once.
var (
	keyAttributes, keySource, keyPrincipal = ast.StringTerm("attributes"), ast.StringTerm("source"), ast.StringTerm("principal")
	keyRequest, keyHTTP, keyMethod         = ast.StringTerm("request"), ast.StringTerm("http"), ast.StringTerm("method")
	keyHost, keyPath                       = ast.StringTerm("host"), ast.StringTerm("path")
	keyParsedPath, keyParsedQuery          = ast.StringTerm("parsed_path"), ast.StringTerm("parsed_query")
)

func read(check *auth.CheckRequest) (request, error) {
	attributes := check.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	parsed, err := url.ParseRequestURI(http.GetPath())
	if err != nil {
		return request{}, err
	}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return request{}, err
	}
	return request{
		principal:   door.Principal(attributes),
		method:      http.GetMethod(),
		host:        http.GetHost(),
		path:        http.GetPath(),
		parsedPath:  strings.Split(strings.TrimLeft(parsed.Path, "/"), "/"),
		parsedQuery: query,
	}, nil
}

// value is the input as OPA evaluates it: names and places are the plugin's.
func (r *request) value() ast.Value {
	path := make([]*ast.Term, len(r.parsedPath))
	for at, part := range r.parsedPath {
		path[at] = ast.StringTerm(part)
	}
	query := ast.NewObjectWithCapacity(len(r.parsedQuery))
	for name, values := range r.parsedQuery {
		terms := make([]*ast.Term, len(values))
		for at, text := range values {
			terms[at] = ast.StringTerm(text)
		}
		query.Insert(ast.StringTerm(name), ast.ArrayTerm(terms...))
	}
	http := ast.ObjectTerm(
		ast.Item(keyMethod, ast.StringTerm(r.method)),
		ast.Item(keyHost, ast.StringTerm(r.host)),
		ast.Item(keyPath, ast.StringTerm(r.path)),
	)
	return ast.NewObject(
		ast.Item(keyAttributes, ast.ObjectTerm(
			ast.Item(keySource, ast.ObjectTerm(ast.Item(keyPrincipal, ast.StringTerm(r.principal)))),
			ast.Item(keyRequest, ast.ObjectTerm(ast.Item(keyHTTP, http))),
		)),
		ast.Item(keyParsedPath, ast.ArrayTerm(path...)),
		ast.Item(keyParsedQuery, ast.NewTerm(query)),
	)
}

// document is the same for the decision log, which OPA writes from plain Go values.
func (r *request) document() any {
	return map[string]any{
		"attributes": map[string]any{
			"source":  map[string]any{"principal": r.principal},
			"request": map[string]any{"http": map[string]any{"method": r.method, "host": r.host, "path": r.path}},
		},
		"parsed_path":  r.parsedPath,
		"parsed_query": r.parsedQuery,
	}
}
