package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"signalwarden.example/bench/peers/internal/door"
)

const workload = cedar.EntityType("Workload")

var errNoLong = errors.New("an argument is not one whole number")

// named is a policy with its id.
type named struct {
	id     cedar.PolicyID
	policy *cedar.Policy
}

// slice is the policies of one action: cedar-go asks for an iterator and evaluates all that it gives.
type slice []named

// All is cedar.PolicyIterator.
func (s slice) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, one := range s {
			if !yield(one.id, one.policy) {
				return
			}
		}
	}
}

// engine is all that a decision needs; nothing in it changes.
type engine struct {
	routes   routes
	entities cedar.EntityMap
	signals  table
	log      *log
}

// document is table.json.
type document struct {
	Routes   []routeEntry    `json:"routes"`
	Entities cedar.EntityMap `json:"entities"`
	Signals  []signalEntry   `json:"signals"`
}

func load(files string) (*engine, error) {
	text, err := os.ReadFile(filepath.Join(files, "policies.cedar"))
	if err != nil {
		return nil, err
	}
	slices, err := byAction(text)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(files, "table.json"))
	if err != nil {
		return nil, err
	}
	var described document
	if err := json.Unmarshal(raw, &described); err != nil {
		return nil, err
	}
	made := &engine{routes: routes{}, entities: described.Entities}
	if made.signals, err = newTable(described.Signals); err != nil {
		return nil, err
	}
	for _, entry := range described.Routes {
		if err := made.routes.add(entry, slices[entry.Action]); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// byAction sorts the policies by the one action that each is for. cedar-go itself does not slice.
func byAction(text []byte) (map[string]slice, error) {
	policies, err := cedar.NewPolicyListFromBytes("policies.cedar", text)
	if err != nil {
		return nil, err
	}
	sorted := map[string]slice{}
	for _, policy := range policies {
		raw, err := policy.MarshalJSON()
		if err != nil {
			return nil, err
		}
		var scope struct {
			Action struct {
				Op     string `json:"op"`
				Entity struct {
					ID string `json:"id"`
				} `json:"entity"`
			} `json:"action"`
		}
		if err := json.Unmarshal(raw, &scope); err != nil {
			return nil, err
		}
		if scope.Action.Op != "==" {
			return nil, fmt.Errorf("a policy is not for one action: %s", raw)
		}
		id := cedar.PolicyID(policy.Annotations()["id"])
		sorted[scope.Action.Entity.ID] = append(sorted[scope.Action.Entity.ID], named{id, policy})
	}
	return sorted, nil
}

// Allow decides. Whatever can't be understood is refused, and a policy that errs, too.
func (e *engine) Allow(_ context.Context, check *auth.CheckRequest) (bool, error) {
	attributes := check.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	path, query, _ := strings.Cut(http.GetPath(), "?")
	found, resource := e.routes.find(http.GetMethod(), http.GetHost(), path)
	principal := door.Principal(attributes)
	uid := cedar.NewEntityUID(workload, cedar.String(principal))
	made := decision{http: http, path: path, principal: principal, route: found, resource: resource}
	if found == nil {
		return false, e.write(&made)
	}
	arguments, err := found.arguments(query)
	if err != nil {
		made.err = err
		return false, e.write(&made)
	}
	now := time.Now()
	signals, rendered := e.signals.fresh(principal, now.UnixNano())
	made.signals, made.arguments = rendered, query
	answer, diagnostic := cedar.Authorize(found.policies, e.entities, cedar.Request{
		Principal: uid,
		Action:    found.action,
		Resource:  cedar.NewEntityUID(found.resourceType, cedar.String(resource)),
		Context: cedar.NewRecord(cedar.RecordMap{
			"request": cedar.NewRecord(cedar.RecordMap{"path": cedar.String(path), "args": arguments}),
			"signals": signals,
		}),
	})
	made.reasons = diagnostic.Reasons
	if len(diagnostic.Errors) > 0 {
		made.err = errors.New(diagnostic.Errors[0].Message)
	}
	made.allow = answer == cedar.Allow && made.err == nil
	return made.allow, e.write(&made)
}

// arguments reads the numbers that the route names.
func (r *route) arguments(query string) (cedar.Record, error) {
	if len(r.query) == 0 || query == "" {
		return cedar.Record{}, nil
	}
	given, err := url.ParseQuery(query)
	if err != nil {
		return cedar.Record{}, err
	}
	values := make(cedar.RecordMap, len(r.query))
	for _, name := range r.query {
		texts, there := given[name]
		if !there {
			continue
		}
		if len(texts) != 1 {
			return cedar.Record{}, errNoLong
		}
		number, err := strconv.ParseInt(texts[0], 10, 64)
		if err != nil {
			return cedar.Record{}, errNoLong
		}
		values[cedar.String(name)] = cedar.Long(number)
	}
	return cedar.NewRecord(values), nil
}

func (e *engine) write(made *decision) error {
	if e.log == nil {
		return nil
	}
	return e.log.write(made)
}
